"""What Python and the page's scripts call in each other."""

from google.colab.output._js import eval_js, register_callback

__all__ = ["eval_js", "register_callback"]

"""The user's Drive as a folder."""

from google.colab import _message


def mount(mountpoint, timeout_ms=120000):
    """Asks the page for the user's credentials. Nothing is mounted."""
    answer = _message.blocking_request(
        "request_auth", request={"authType": "dfs_ephemeral"}, timeout_sec=int(timeout_ms / 1000)
    )
    if not answer or not answer.get("success"):
        raise ValueError("mount failed: credential propagation was unsuccessful")
    print(f"Mounted at {mountpoint}")

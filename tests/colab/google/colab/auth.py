"""The user's consent."""

from google.colab import _message


def authenticate_user():
    """Asks the page for the user's credentials."""
    answer = _message.blocking_request("request_auth", request={"authType": "auth_user_ephemeral"}, timeout_sec=600)
    if not answer or not answer.get("success"):
        raise ValueError("credential propagation was unsuccessful")

"""A greeting, and what the function knows about itself."""

import logging
import platform

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)


def handler(event, context):
    """Greets `name`."""
    name = event.get("name", "world") if isinstance(event, dict) else "world"
    logger.info("greeting %s, with %d ms left", name, context.get_remaining_time_in_millis())
    return {
        "message": f"Hello, {name}!",
        "from": f"Python {platform.python_version()}",
        "function": context.function_name,
        "request": context.aws_request_id,
    }

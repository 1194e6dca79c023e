"""The shortest way through the whole system: if this fails, look here first."""

APP = """
def handler(event, context):
    print("hello from", context.function_name)
    return {"event": event, "request": context.aws_request_id}
"""


def test_a_function_is_created_and_answers(node):
    name = node.create({"app.py": APP})
    response, answer = node.invoke(name, {"name": "Ada"})
    assert response["StatusCode"] == 200
    assert "FunctionError" not in response
    assert answer == {"event": {"name": "Ada"}, "request": response["ResponseMetadata"]["RequestId"]}

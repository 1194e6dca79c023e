"""Every constraint of the Lambda service model, broken once: too long, too short, wrong pattern, out of range, unknown
word, missing.

What AWS answers is worked out here from botocore's model by AWS's rules (written down in `violations`, taken from
recorded answers of AWS), with Python's regular expressions, and compared with what the node answers: code, status and
message, to the letter. Operations that are not built are checked like the others; a good request to one answers 501.
"""

import copy
import re

import botocore.exceptions
import botocore.session
import pytest

ACCOUNT = "000000000000"
ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}"
UUID = "01234567-89ab-cdef-0123-456789abcdef"
EXECUTION = f"{ARN}:function:no-such-function:1/durable-execution/name/id"

# A good value for each shape whose pattern is more than a word.
SAMPLES = {
    "AdditionalVersion": "1",
    "Alias": "alias",
    "Arn": f"{ARN}:function:other",
    "CapacityProviderArn": f"{ARN}:capacity-provider:c",
    "CallbackId": "abcd",
    "CodeSigningConfigArn": f"{ARN}:code-signing-config:csc-0123456789abcdef0",
    "DestinationArn": f"{ARN}:function:other",
    "DurableExecutionArn": EXECUTION,
    "Endpoint": "host:9092",
    "EnvironmentVariableName": "NAME",
    "EventSourceMappingArn": f"{ARN}:event-source-mapping:{UUID}",
    "EventSourceToken": "token",
    "FileSystemArn": f"arn:aws:elasticfilesystem:us-east-1:{ACCOUNT}:access-point/fsap-0123456789abcdef0",
    "FunctionArn": f"{ARN}:function:no-such-function",
    "FunctionName": "no-such-function",
    "FunctionRuntimeArn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:runtime/r",
    "FunctionUrlFunctionName": "no-such-function",
    "FunctionUrlQualifier": "alias",
    "KMSKeyArn": "arn:aws:kms:us-east-1:1:key/1",
    "KMSKeyArnNonEmpty": "arn:aws:kms:us-east-1:1:key/1",
    "LayerPermissionAllowedAction": "lambda:GetLayerVersion",
    "LayerPermissionAllowedPrincipal": "*",
    "LayerVersionArn": f"{ARN}:layer:no-such-layer:1",
    "LocalMountPath": "/mnt/data",
    "MasterRegion": "ALL",
    "NameSpacedFunctionArn": f"{ARN}:function:no-such-function",
    "NamespacedFunctionName": "no-such-function",
    "OrganizationId": "o-0123456789",
    "PolicyResourceArn": f"{ARN}:function:no-such-function",
    "PrincipalOrgID": "o-0123456789",
    "PublishedFunctionQualifier": "1",
    "ResourceArn": "arn:aws:sqs:us-east-1:1:queue",
    "RevisionId": UUID,
    "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/r",
    "RuntimeVersionArn": "arn:aws:lambda:us-east-1::runtime:0123",
    "SecurityGroupId": "sg-0",
    "SourceOwner": ACCOUNT,
    "SubnetId": "subnet-0",
    "TaggableResource": f"{ARN}:function:no-such-function",
    "TagsErrorCode": "AException",
    "FilterCriteriaErrorCode": "AException",
    "UnqualifiedFunctionName": "no-such-function",
    "Version": "1",
    "VersionWithLatestPublished": "1",
    "Action": "lambda:InvokeFunction",
    "CodeSigningConfigId": "csc-0123456789abcdef0",
    "String": "text",
}
# Runtimes for which AWS still takes functions, in the order in which it tells them.
RUNTIMES = [
    "nodejs20.x", "python3.14", "provided.al2023", "python3.12", "python3.13", "nodejs24.x", "nodejs22.x", "java25",
    "python3.10", "python3.11", "java21", "ruby3.3", "ruby3.4", "ruby3.2", "python3.8", "python3.9", "java17",
    "nodejs16.x", "dotnet10", "dotnet8", "java11", "dotnet6", "nodejs18.x", "provided.al2", "java8.al2",
]
# Recorded orders of sets that are not those of a Java HashSet.
ORDERS = [["x86_64", "arm64"], ["LATEST", "AT_TIMESTAMP", "TRIM_HORIZON"]]
# More than this cannot be sent in a request.
MOST_LENGTH = 1_000_000
MOST_HEAD = 30_000


def service_model():
    return botocore.session.get_session().get_service_model("lambda")


# -- good values -----------------------------------------------------------------------------------------------------


def sample(shape, seen=()):
    """A good value of `shape`, with required members only."""
    kind = shape.type_name
    least = int(shape.metadata.get("min", 0) or 0)
    if shape.name in seen:
        return {}
    if kind == "structure":
        return {name: sample(shape.members[name], (*seen, shape.name)) for name in shape.required_members}
    if kind == "list":
        return [sample(shape.member, seen) for _ in range(max(least, 1))]
    if kind == "map":
        return {sample(shape.key, seen): sample(shape.value, seen)}
    if kind == "string":
        if shape.enum:
            return shape.enum[0]
        text = SAMPLES.get(shape.name, "a")
        return text if len(text) >= least else text * least
    if kind == "blob":
        return b"0" * max(least, 1)
    if kind in ("integer", "long"):
        return max(least, 1)
    if kind in ("double", "float"):
        return float(shape.metadata.get("min", 0.5))
    return {"boolean": True, "timestamp": 1_700_000_000}[kind]


# -- AWS's rules -----------------------------------------------------------------------------------------------------


def java_order(words):
    for recorded in ORDERS:
        if sorted(recorded) == sorted(words):
            return recorded

    def spread(word):
        value = 0
        for char in word:
            value = (31 * value + ord(char)) & 0xFFFFFFFF
        return value ^ (value >> 16)

    capacity = 1
    while capacity < len(words):
        capacity *= 2
    if len(words) > capacity * 3 // 4:
        capacity *= 2
    return sorted(words, key=lambda word: spread(word) & (capacity - 1))


def number_text(shape, value):
    return str(float(value)) if shape.type_name in ("double", "float") else str(int(value))


def constraints(shape):
    """Every constraint of a scalar, as `(text, check)`."""
    found = []
    counted = "length" if shape.type_name in ("string", "blob", "list", "map") else "value"
    measure = len if counted == "length" else (lambda value: value)
    most, least = shape.metadata.get("max"), shape.metadata.get("min")
    if most is not None:
        text = f"Member must have {counted} less than or equal to {number_text(shape, most)}"
        found.append((text, lambda value: measure(value) <= most))
    if least is not None:
        text = f"Member must have {counted} greater than or equal to {number_text(shape, least)}"
        found.append((text, lambda value: measure(value) >= least))
    pattern = shape.metadata.get("pattern")
    if pattern:
        told = pattern
        if shape.name == "LayerVersionArn" and pattern.startswith("((arn"):
            told = pattern[1:-1]
        text = f"Member must satisfy regular expression pattern: {told}"
        unicode_classes = pattern.replace(r"\p{L}\p{Z}\p{N}", r"\w\s")
        found.append((text, lambda value: re.compile(unicode_classes).fullmatch(value) is not None))
    if getattr(shape, "enum", None):
        text = f"Member must satisfy enum value set: [{', '.join(java_order(shape.enum))}]"
        found.append((text, lambda value: value in shape.enum))
    return found


def broken(shape, value):
    return [text for text, check in constraints(shape) if not check(value)]


def show(value):
    if isinstance(value, list):
        return "[" + ", ".join(show(entry) for entry in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={show(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def path_of(prefix, name):
    name = name[0].lower() + name[1:]
    return f"{prefix}.{name}" if prefix else name


def violations(shape, value, prefix=""):
    """What AWS says of `value`: one text for each violation, in the model's order."""
    told = []
    for name, member in shape.members.items():
        path = path_of(prefix, name)

        def tell(constraint, shown, member=member, path=path, told=told):
            what = "Value" if member.metadata.get("sensitive") else f"Value '{shown}'"
            told.append(f"{what} at '{path}' failed to satisfy constraint: {constraint}")

        if name not in value:
            if name in shape.required_members:
                told.append(f"Value null at '{path}' failed to satisfy constraint: Member must not be null")
            continue
        given = value[name]
        if member.type_name == "structure":
            told += violations(member, given, path)
        elif member.type_name == "list":
            for constraint in broken(member, given):
                tell(constraint, show(given))
            if member.member.type_name == "structure":
                for number, entry in enumerate(given, 1):
                    told += violations(member.member, entry, f"{path}.{number}.member")
            elif any(broken(member.member, entry) for entry in given):
                if member.member.name == "Runtime":
                    tell(f"Member must satisfy enum value set: [{', '.join(RUNTIMES)}]", show(given))
                    continue
                texts = [text for text, _ in constraints(member.member)]
                if member.name not in ("SubnetIds", "SecurityGroupIds"):
                    texts.append("Member must not be null")
                tell(f"Member must satisfy constraint: [{', '.join(texts)}]", show(given))
        elif member.type_name == "map":
            for constraint in broken(member, given):
                tell(constraint, show(given))
            if any(broken(member.key, key) for key in given):
                texts = [text for text, _ in constraints(member.key)]
                tell(f"Map keys must satisfy constraint: [{', '.join(texts)}]", show(given))
            if any(map_value_is_bad(member.value, entry) for entry in given.values()):
                texts = [text for text, _ in constraints(member.value)] + ["Member must not be null"]
                tell(f"Map value must satisfy constraint: [{', '.join(texts)}]", show(given))
        else:
            for constraint in broken(member, given):
                tell(constraint, show(given))
    return told


def map_value_is_bad(shape, value):
    inner = shape.type_name == "list" and any(broken(shape.member, entry) for entry in value)
    return bool(inner or broken(shape, value))


def expected(shape, value):
    told = violations(shape, value)
    count = len(told)
    return f"{count} validation error{'s' if count > 1 else ''} detected: {'; '.join(told)}" if told else None


# -- breaking one constraint at a time -------------------------------------------------------------------------------


def longer(shape, length):
    text = sample(shape)
    return (text + (text[-1:] or "a") * length)[:length]


def bad_values(shape):
    """Values of `shape` that each break something, with what they break."""
    kind, most, least = shape.type_name, shape.metadata.get("max"), shape.metadata.get("min")
    if kind == "string":
        if most is not None and most < MOST_LENGTH:
            yield "too long", longer(shape, int(most) + 1)
        if least:
            yield "too short", "a" * (int(least) - 1)
        if shape.metadata.get("pattern"):
            for text in ("*", "a b!", " ", "{}", "1", "%"):
                if broken(shape, text) and any("pattern" in told for told in broken(shape, text)):
                    yield "wrong pattern", text
                    break
        if shape.enum:
            yield "unknown word", "NoSuchWord"
    elif kind == "blob":
        if most is not None and most < MOST_LENGTH:
            yield "too long", b"0" * (int(most) + 1)
    elif kind in ("integer", "long", "double", "float"):
        if most is not None and most < 2**31 - 1:
            yield "too large", type(sample(shape))(most + 1)
        if least is not None:
            yield "too small", type(sample(shape))(least - 1)
    elif kind == "list":
        if most is not None and most < 2000:
            yield "too many", [sample(shape.member) for _ in range(int(most) + 1)]
        if least:
            yield "too few", []
        if shape.member.type_name != "structure":
            for what, value in bad_values(shape.member):
                yield f"entry {what}", [value] * max(int(least or 1), 1)
    elif kind == "map":
        if most is not None and shape.key.type_name == "string" and not shape.key.enum and most < 2000:
            yield "too many", {f"{sample(shape.key)}{number}": sample(shape.value) for number in range(int(most) + 1)}
        for what, key in bad_values(shape.key):
            yield f"key {what}", {key: sample(shape.value)}
        for what, value in bad_values(shape.value):
            yield f"value {what}", {sample(shape.key): value}


def cases(shape, seen=()):
    """Inputs of `shape` with one fault each: `(path, what, input)`."""
    if shape.name in seen:
        return
    good = sample(shape)
    for name, member in shape.members.items():
        if name in shape.required_members:
            without = copy.deepcopy(good)
            del without[name]
            yield name, "missing", without
        for what, value in bad_values(member):
            yield name, what, {**copy.deepcopy(good), name: value}
        inner, wrap = member, lambda value: value
        if member.type_name == "list" and member.member.type_name == "structure":
            inner, wrap = member.member, lambda value: [value]
        if inner.type_name == "structure":
            for path, what, value in cases(inner, (*seen, shape.name)):
                yield f"{name}.{path}", what, {**copy.deepcopy(good), name: wrap(value)}


def can_be_sent(operation, path, what, value):
    """Not everything that breaks a constraint can be put into a request."""
    shape = operation.input_shape.members[path.split(".")[0]]
    location = shape.serialization.get("location")
    if location == "uri":
        # botocore cannot build a path without the label; an empty one at the end is another path.
        uri = operation.http["requestUri"].split("?")[0]
        return what != "missing" and not (value == "" and uri.endswith("}"))
    if location in ("header", "querystring"):
        # An empty list in a query is no list.
        return len(show(value or "")) < MOST_HEAD and value != []
    # The whole body, as bytes, is the function's event and has no bound here.
    return operation.input_shape.serialization.get("payload") != path or shape.type_name != "blob"


def call(client, operation, parameters):
    """`(status, code, message)` of the answer."""
    method = getattr(client, botocore.xform_name(operation))
    try:
        response = method(**parameters)
        return response["ResponseMetadata"]["HTTPStatusCode"], None, None
    except botocore.exceptions.ClientError as error:
        answer = error.response
        return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


@pytest.fixture
def unchecked(node):
    """A client that sends whatever it is given."""
    return node.client("lambda", parameter_validation=False, user_agent="constraints")


def test_every_broken_constraint_is_answered_as_aws_answers_it(node, unchecked, capsys):
    model = service_model()
    function = node.create({"app.py": "def handler(event, context): return event"})
    total, passed, unsent, faults = 0, 0, 0, []
    for name in model.operation_names:
        operation = model.operation_model(name)
        for path, what, parameters in cases(operation.input_shape):
            top = parameters.get(path.split(".")[0])
            if not can_be_sent(operation, path, what, top):
                unsent += 1
                continue
            wanted = (400, "ValidationException", expected(operation.input_shape, parameters))
            if path == "Runtime" and what == "unknown word":
                # Lambda checks this one behind the others and behind the look-up.
                parameters.update({"Handler": "app.handler"} if name == "CreateFunction" else {"FunctionName": function})
                text = f"Value {top} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: ["
                wanted = (400, "InvalidParameterValueException", f"{text}{', '.join(RUNTIMES)}] or be a valid ARN")
            if wanted[2] is None:
                unsent += 1
                continue
            total += 1
            got = call(unchecked, name, parameters)
            if got == wanted:
                passed += 1
            else:
                faults.append(f"{name} {path} {what}\n  wanted {wanted}\n  got    {got}")
    with capsys.disabled():
        share = 100 * passed / max(total, 1)
        print(f"\nconstraints of the Lambda model: {passed} of {total} answered as AWS does ({share:.1f} %); "
              f"{unsent} cannot be sent")
    assert not faults, f"{len(faults)} of {total}:\n" + "\n".join(fault[:900] for fault in faults[:15])
    assert total > 800


def test_several_violations_are_told_at_once(unchecked):
    model = service_model()
    shape = model.operation_model("CreateFunction").input_shape
    parameters = {"FunctionName": "*" * 200, "Role": "r", "Code": {}, "Timeout": 0, "MemorySize": 1, "Layers": ["x"]}
    told = expected(shape, parameters)
    assert told.startswith("6 validation errors detected: ")
    assert call(unchecked, "CreateFunction", parameters) == (400, "ValidationException", told)


def test_wrong_types_are_refused(unchecked):
    # botocore writes what it is given.
    for parameters, told in [
        ({"Timeout": "3"}, "STRING_VALUE can not be converted to an Integer"),
        ({"Publish": "yes"}, "STRING_VALUE can not be converted to a Boolean"),
        ({"MemorySize": True}, "TRUE_VALUE can not be converted to an Integer"),
    ]:
        assert call(unchecked, "CreateFunction", parameters) == (400, "SerializationException", told)


def test_an_operation_that_is_not_built_says_so(unchecked):
    model = service_model()
    refused = []
    for name in model.operation_names:
        operation = model.operation_model(name)
        if name.startswith("Delete") or name in ("Invoke", "InvokeWithResponseStream"):
            continue
        status, code, message = call(unchecked, name, sample(operation.input_shape))
        if status == 501:
            assert code == "NotImplementedException"
            assert message == f"{name} is not built yet"
            refused.append(name)
        else:
            assert code is None or status < 500, (name, status, code, message)
    assert "CreateCapacityProvider" in refused
    assert "CreateFunction" not in refused

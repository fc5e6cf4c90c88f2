"""gRPC by Google's own library: `calls.py serve ADDRESS`, or `calls.py ask TARGET AUTHORITY [CA]`, which prints what went wrong."""

import sys
import threading
from concurrent import futures

import grpc

BIG = b"x" * (1 << 20)
STEPS = 20


def unary(request, context):
    context.send_initial_metadata((("first", "sent at once"),))
    if request == b"fail":
        context.set_trailing_metadata((("why", "as asked"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: 1 + 1 %")
    return b"unary:" + request


def out(request, context):
    for index in range(int(request)):
        yield b"%d" % index


def collect(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield b"echo:" + request


def slow(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(30)
    return b"too late"


def serve(address):
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Out": grpc.unary_stream_rpc_method_handler(out),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
    }
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    if not server.add_insecure_port(address):
        sys.exit("cannot listen at " + address)
    server.start()
    server.wait_for_termination()


def status(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    return None


def checks(channel):
    method = lambda kind, name: getattr(channel, kind)("/test.Echo/" + name)
    unary, slow = method("unary_unary", "Unary"), method("unary_unary", "Slow")
    answer, call = unary.with_call(b"hello", timeout=20, metadata=(("own", "word"),))
    yield "unary", answer == b"unary:hello"
    yield "metadata", ("first", "sent at once") in [tuple(pair) for pair in call.initial_metadata()]
    yield "a megabyte", unary(BIG, timeout=20) == b"unary:" + BIG
    error = status(lambda: unary(b"fail", timeout=20))
    yield "status", error and error.code() == grpc.StatusCode.FAILED_PRECONDITION
    yield "message", error and error.details() == "no: 1 + 1 %"
    yield "trailers", error and ("why", "as asked") in [tuple(pair) for pair in error.trailing_metadata()]
    numbers = list(method("unary_stream", "Out")(b"1000", timeout=20))
    yield "streaming out", numbers == [b"%d" % index for index in range(1000)]
    total = method("stream_unary", "Collect")((b"12345" for _ in range(1000)), timeout=20)
    yield "streaming in", total == b"5000"
    # Each message is sent when the answer to the one before has come: nothing may be held back.
    turn, heard = threading.Semaphore(1), []

    def messages():
        for index in range(STEPS):
            turn.acquire()
            yield b"%d" % index

    for answer in method("stream_stream", "Both")(messages(), timeout=20):
        heard.append(answer)
        turn.release()
    yield "both ways by turns", heard == [b"echo:%d" % index for index in range(STEPS)]
    error = status(lambda: slow(b"", timeout=0.3))
    yield "deadline", error and error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    call = slow.future(b"", timeout=20)
    yield "cancel", call.cancel() and call.code() == grpc.StatusCode.CANCELLED
    error = status(lambda: method("unary_unary", "None")(b"", timeout=20))
    yield "no such method", error and error.code() == grpc.StatusCode.UNIMPLEMENTED


def channel_to(target, authority, ca):
    if not ca:
        return grpc.insecure_channel(target, options=[("grpc.default_authority", authority)])
    with open(ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    return grpc.secure_channel(target, credentials, options=[("grpc.ssl_target_name_override", authority)])


def ask(target, authority, ca=None):
    count = 0
    with channel_to(target, authority, ca) as channel:
        for name, holds in checks(channel):
            count += 1
            if not holds:
                sys.exit("wrong: " + name)
    print(count, "checks hold")


def code(target, authority, ca=None):
    with channel_to(target, authority, ca) as channel:
        error = status(lambda: channel.unary_unary("/test.Echo/Unary")(b"", timeout=20))
        print(error.code().name if error else "OK")


{"serve": serve, "ask": ask, "code": code}[sys.argv[1]](*sys.argv[2:])

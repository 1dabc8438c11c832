"""How manifests are rendered: kustomize and helm as libraries, called from xtask and from the tests.

    kubernetes.py kustomize FOLDER         what a kustomization comes to, as YAML
    kubernetes.py json FOLDER              the same, as one JSON list
    kubernetes.py chart FOLDER RELEASE NAMESPACE VALUES    a chart with the values of a JSON file, as JSON: template -> text
    kubernetes.py lint FOLDER VALUES       what helm lint says of it, as JSON
    kubernetes.py admit POLICY             what a ValidatingAdmissionPolicy says of a request, as JSON: POLICY is {"spec": …,
                                           "given": {"object": …, "oldObject": …, "request": …, "params": …}}
    kubernetes.py serve                    any of these, as a JSON list of words in each line of standard input; each answer
                                           is a line, {"text": …} or {"refused": …}

Decides nothing and writes no file. The libraries are in target/kubernetes, where `cargo xtask setup` puts them; PYTHONPATH
says where that is. Exit code 1: the sentence of the library is on standard error.
"""

import ctypes
import functools
import importlib.util
import json
import pathlib
import re
import sys


def kustomize(folder, call="pykustomize_build"):
    """Calls the library itself: the package's own wrapping asks for a newer Python and for another package."""
    machine = {"x86_64": "linux-amd64", "aarch64": "linux-arm64"}
    import platform

    for place in sys.path:
        path = pathlib.Path(place) / "pykustomize/_lib" / machine.get(platform.machine(), "none") / "libpykustomize.so"
        if path.is_file():
            break
    else:
        raise SystemExit("no kustomize for this machine: cargo xtask setup")
    library = ctypes.CDLL(str(path))
    library.pykustomize_last_error.restype = ctypes.c_char_p
    text = ctypes.c_char_p()
    if getattr(library, call)(folder.encode(), None, ctypes.byref(text)) != 0:
        raise SystemExit(f"kustomize {folder}: {library.pykustomize_last_error().decode()}")
    return text.value.decode()


def chart(folder, release, namespace, values):
    """Helm's own engine, without a cluster."""
    import helm_python

    try:
        with helm_python.Chart.load(folder) as loaded:
            values = json.loads(pathlib.Path(values).read_text())
            loaded.validate_schema(values)
            return json.dumps(loaded.render(values, name=release, namespace=namespace, is_install=True))
    except helm_python.HelmError as error:
        raise SystemExit(f"helm template {folder}: {error}") from None


def lint(folder, values):
    """Helm's own lint, warnings too."""
    import helm_python

    values = json.loads(pathlib.Path(values).read_text())
    return json.dumps(helm_python.lint(folder, values, strict=True))


@functools.cache
def language():
    """The language itself: the package around it asks for what its command line needs. A process can load it once."""
    for place in sys.path:
        for path in pathlib.Path(place).glob("cel/cel.*.so"):
            spec = importlib.util.spec_from_file_location("cel", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise SystemExit("no CEL for this machine: cargo xtask setup")


def admit(policy):
    """As the API server does: conditions, then variables, then validations; what cannot be evaluated is a refusal."""
    cel = language()
    spec, given = policy["spec"], policy["given"]
    context = cel.Context()
    # What Kubernetes adds to the language, as far as policies here use it.
    context.add_function("trim", lambda text: text.strip())
    context.add_function("split", lambda text, at: text.split(at))
    context.add_function("join", lambda words, between="": between.join(words))
    context.add_function("findAll", lambda text, pattern: [found.group(0) for found in re.finditer(pattern, text)])
    for name, value in given.items():
        context.add_variable(name, value)

    def evaluate(expression):
        return cel.evaluate(expression, context)

    denied = []
    try:
        if not all(evaluate(condition["expression"]) for condition in spec.get("matchConditions", [])):
            return json.dumps({"matches": False, "denied": denied})
        variables = {}
        for variable in spec.get("variables", []):
            variables[variable["name"]] = evaluate(variable["expression"])
            context.add_variable("variables", variables)
        for validation in spec["validations"]:
            if evaluate(validation["expression"]) is not True:
                message = validation.get("messageExpression")
                denied.append(evaluate(message) if message else validation["message"])
    except Exception as error:  # whatever an expression does
        denied.append(f"cannot be evaluated: {type(error).__name__}: {error}")
    return json.dumps({"matches": True, "denied": denied})


def main(words):
    match words:
        case ["kustomize", folder]:
            return kustomize(folder)
        case ["json", folder]:
            return kustomize(folder, "pykustomize_build_to_json")
        case ["chart", folder, release, namespace, values]:
            return chart(folder, release, namespace, values)
        case ["lint", folder, values]:
            return lint(folder, values)
        case ["admit", policy]:
            return admit(json.loads(policy))
    raise SystemExit(__doc__)


def serve():
    for line in sys.stdin:
        try:
            answer = {"text": main(json.loads(line))}
        except SystemExit as refusal:
            answer = {"refused": str(refusal)}
        print(json.dumps(answer), flush=True)


if sys.argv[1:] == ["serve"]:
    serve()
else:
    print(main(sys.argv[1:]), end="")

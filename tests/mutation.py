"""Plants small faults in the modules below, one at a time, and counts which their tests notice.

python -m tests.mutation [--module NAME ...] [--sample N --seed S] [--jobs N] [--output FILE]
python -m tests.mutation --table benchmarks/results/mutation.json

The faults are those of cosmic-ray's operators. Each is tried in a fork of one process that has imported the heavy
libraries, and none of ours: its tests find the changed module in place of the file, which is never written. Mutants
that change nothing that anybody could see are listed with the reason in mutation_equivalent.json; they count neither
as noticed nor as missed.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = Path(__file__).with_name("mutation_equivalent.json")
# imported once, before the forks
HEAVY = (
    *("numpy", "scipy.signal", "scipy.optimize", "sklearn.metrics", "torch", "torchvision", "lightning.pytorch"),
    *("cv2", "av", "onnx", "onnxruntime", "hypothesis", "pytest"),
)
# one way or two of changing each operator: all of cosmic-ray's would mostly count TypeErrors
OPERATORS = (
    *("AddNot", "ExceptionReplacer", "NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop"),
    *("ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceFalseWithTrue", "ReplaceTrueWithFalse"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
    *("ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Invert"),
    *("ReplaceBinaryOperator_Add_Sub", "ReplaceBinaryOperator_Sub_Add", "ReplaceBinaryOperator_Mul_Div"),
    *("ReplaceBinaryOperator_Div_Mul", "ReplaceBinaryOperator_FloorDiv_Mul", "ReplaceBinaryOperator_Mod_FloorDiv"),
    *("ReplaceBinaryOperator_Pow_Mul", "ReplaceBinaryOperator_BitAnd_BitOr", "ReplaceBinaryOperator_BitOr_BitAnd"),
    *("ReplaceBinaryOperator_BitXor_BitAnd", "ReplaceBinaryOperator_LShift_RShift"),
    *("ReplaceBinaryOperator_RShift_LShift", "ReplaceComparisonOperator_Eq_NotEq"),
    *("ReplaceComparisonOperator_NotEq_Eq", "ReplaceComparisonOperator_Is_IsNot"),
    *("ReplaceComparisonOperator_IsNot_Is", "ReplaceComparisonOperator_Lt_LtE", "ReplaceComparisonOperator_LtE_Lt"),
    *("ReplaceComparisonOperator_Gt_GtE", "ReplaceComparisonOperator_GtE_Gt", "ReplaceComparisonOperator_Lt_Gt"),
    *("ReplaceComparisonOperator_Gt_Lt", "ReplaceComparisonOperator_LtE_GtE", "ReplaceComparisonOperator_GtE_LtE"),
)
# what a module's tests may take besides five times what they take undisturbed, in seconds
PATIENCE = 20.0

LOSSES = ("tests/core/test_losses.py", "tests/core/test_gathering.py", "-k", "not short_cut and not leaks")
# the few quick tests that are to notice every fault of a module
TESTS: dict[str, tuple[str, ...]] = {
    "avgn.runtime.decision": ("tests/runtime/test_decision.py",),
    "avgn.runtime.stream": ("tests/runtime/test_stream_rules.py",),
    "avgn.runtime.clock": ("tests/runtime/test_clock.py",),
    "avgn.runtime.web.wire": ("tests/web/test_wire.py",),
    "avgn.runtime.web.session": ("tests/web/test_session.py", "tests/web/test_conversation.py"),
    "avgn.runtime.web.limits": ("tests/web/test_limits.py",),
    "avgn.runtime.web.desk": ("tests/web/test_lessons.py",),
    "avgn.runtime.web.school": ("tests/web/test_lessons.py",),
    "avgn.runtime.web.recorder": ("tests/web/test_lessons.py",),
    "avgn.runtime.web.archive": ("tests/web/test_lessons.py",),
    "avgn.evaluation.metrics": ("tests/evaluation/test_metrics.py",),
    "avgn.losses": LOSSES,
    "avgn.grouping": ("tests/core/test_parts.py", "tests/core/test_model.py"),
    "avgn.transformer": ("tests/core/test_parts.py",),
    "avgn.export.verify": ("tests/export/test_verify.py",),
}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One changed module: the line it begins in, that line before and after, and the whole source."""

    operator: str
    line: int
    before: str
    after: str
    source: str = field(repr=False)


def mutants(source: str) -> Iterator[Mutant]:
    """All changes that can matter: those of annotations and of texts for type checkers can't."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    tree = ast.parse(source)
    inert = list(_inert(tree))
    lines = source.splitlines()
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        positions = [start for node in ast_nodes(get_ast(source)) for start, _ in operator.mutation_positions(node)]
        for occurrence, (line, column) in enumerate(positions):
            if any(low <= (line, column) < high for low, high in inert):
                continue
            try:
                changed = mutate_code(source, operator, occurrence)
            except AttributeError:
                # cosmic-ray can't replace exceptions with a dotted name
                continue
            if changed is None or changed == source or not _matters(changed, tree):
                continue
            after = changed.splitlines()
            at = next((n for n, (one, other) in enumerate(zip(lines, after, strict=False)) if one != other), line - 1)
            yield Mutant(operator=name, line=at + 1, before=lines[at].strip(), after=after[at].strip(), source=changed)


def _inert(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """From where to where a module's annotations, imports for type checkers and assertions of its own lie."""
    for node in ast.walk(tree):
        found: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found = [node.returns]
        elif isinstance(node, ast.arg | ast.AnnAssign):
            found = [node.annotation]
        elif isinstance(node, ast.Assert) or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            found = [node]
        for each in found:
            if isinstance(each, ast.expr | ast.stmt):
                yield (each.lineno, each.col_offset), (each.end_lineno or 0, each.end_col_offset or 0)


def _matters(source: str, before: ast.AST) -> bool:
    """Whether a mutant is Python, and did not take the star of keyword-only arguments for a product."""
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return _positional_only(ast.parse(source)) == _positional_only(before)


def _positional_only(tree: ast.AST) -> int:
    return sum(len(node.posonlyargs) for node in ast.walk(tree) if isinstance(node, ast.arguments))


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from changed source."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec")


class Finder:
    """Finds the changed module before Python finds its file."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=Loader(name, str(self.path), self.source))


def path_of(module: str) -> Path:
    """The file of a module, in its own folder rather than behind avgn's links."""
    return (ROOT / module.replace(".", "/")).with_suffix(".py").resolve()


def start(module: str, source: str, said: Path) -> int:
    """Run a module's tests with `source` in its place in a fork; returns the process."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.meta_path.insert(0, Finder(module, path_of(module), source))  # type: ignore[arg-type]
        import pytest

        plain = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist", "--tb=line"]
        code = int(pytest.main([*plain, *TESTS[module]]))
    finally:
        os._exit(code)


@dataclass(kw_only=True)
class Running:
    """A fork at work."""

    mutant: Mutant | None
    process: int
    begun: float
    limit: float


def finished(running: Running) -> str | None:
    """ "killed", "timeout" or "survived", None while it runs; RuntimeError when pytest itself could not run."""
    process, status = os.waitpid(running.process, os.WNOHANG)
    if not process:
        if time.monotonic() - running.begun < running.limit:
            return None
        os.killpg(running.process, signal.SIGKILL)
        os.waitpid(running.process, 0)
        return "timeout"
    code = os.waitstatus_to_exitcode(status)
    # 2 and 4: the tests or their conftest could not even be imported
    if code in (0, 1, 2, 4) or code < 0:
        return "survived" if code == 0 else "killed"
    raise RuntimeError(f"pytest ended with {code}: run the tests by themselves first")


def measure(
    module: str, jobs: int, sample: int | None, seed: int, folder: Path, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Try the mutants of a module, or those alone that were missed `before`; what came of them."""
    source = path_of(module).read_text()
    found = list(mutants(source))
    total = len(found)
    if before is not None:
        missed = {(row["line"], row["before"], row["after"]) for row in before["survived"]}
        found = [mutant for mutant in found if (mutant.line, mutant.before, mutant.after) in missed]
    elif sample is not None and sample < total:
        found = random.Random(seed).sample(found, sample)
    begun = time.monotonic()
    undisturbed = Running(mutant=None, process=start(module, source, folder / "base"), begun=begun, limit=10 * PATIENCE)
    while (outcome := finished(undisturbed)) is None:
        time.sleep(0.02)
    if outcome != "survived":
        raise RuntimeError(f"the tests of {module} fail without a fault:\n{(folder / 'base').read_text()[-3000:]}")
    limit = PATIENCE + 5 * (time.monotonic() - begun)
    outcomes: list[tuple[Mutant, str]] = []
    waiting, running = list(reversed(found)), list[Running]()
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            process = start(module, mutant.source, folder / f"said-{len(running)}")
            running.append(Running(mutant=mutant, process=process, begun=time.monotonic(), limit=limit))
        for each in list(running):
            if (outcome := finished(each)) is not None:
                running.remove(each)
                assert each.mutant is not None
                outcomes.append((each.mutant, outcome))
        time.sleep(0.01)
    if before is not None:
        return joined(before, summary(module, total, outcomes))
    facts = {"seed": seed} if len(found) < total else {}
    return summary(module, total, outcomes) | facts | {"seconds": round(time.monotonic() - begun, 1)}


def summary(module: str, total: int, outcomes: Sequence[tuple[Mutant, str]]) -> dict[str, Any]:
    """The counts of a module, and the mutants that were missed."""
    known = {(e["module"], e["before"], e["after"]): e["reason"] for e in json.loads(EQUIVALENT.read_text())}
    rows = sorted(outcomes, key=lambda pair: (pair[0].line, pair[0].operator, pair[0].after))
    missed = [
        {"line": m.line, "operator": m.operator, "before": m.before, "after": m.after}
        for m, outcome in rows
        if outcome == "survived"
    ]
    equivalent = [row for row in missed if (module, row["before"], row["after"]) in known]
    survived = [row for row in missed if row not in equivalent]
    killed = len(outcomes) - len(missed)
    counted = killed + len(survived)
    return {
        "mutants": total,
        "tried": len(outcomes),
        "killed": killed,
        "timeout": sum(outcome == "timeout" for _, outcome in outcomes),
        "equivalent": len(equivalent),
        "survived": survived,
        "percent": round(100 * killed / counted, 1) if counted else None,
    }


def joined(before: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """What was found, with what came of the mutants that had been missed."""
    killed, equivalent = (before[name] + again[name] for name in ("killed", "equivalent"))
    counted = killed + len(again["survived"])
    return before | {
        "mutants": again["mutants"],
        "tried": counted + equivalent,
        "killed": killed,
        "equivalent": equivalent,
        "survived": again["survived"],
        "percent": round(100 * killed / counted, 1) if counted else None,
    }


def table(found: dict[str, Any]) -> str:
    """The modules as lines for people."""
    lines = [f"{'module':28}{'mutants':>9}{'tried':>7}{'killed':>8}{'equivalent':>12}{'survived':>10}{'noticed':>9}"]
    for name, row in found.items():
        share = "-" if row["percent"] is None else f"{row['percent']:.1f} %"
        counts = f"{row['mutants']:9}{row['tried']:7}{row['killed']:8}{row['equivalent']:12}{len(row['survived']):10}"
        lines.append(f"{name:28}{counts}{share:>9}")
    return "\n".join(lines)


def write(output: Path, found: dict[str, Any]) -> None:
    """Write what was found; of modules that were not tried, a file that is there keeps what it says."""
    before = json.loads(output.read_text())["modules"] if output.is_file() else {}
    rows = before | found
    facts = {
        "python": platform.python_version(),
        "cosmic_ray": importlib.metadata.version("cosmic-ray"),
        "modules": {name: rows[name] for name in TESTS if name in rows},
    }
    output.write_text(json.dumps(facts, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--module", nargs="+", choices=TESTS, default=list(TESTS), metavar="NAME")
    parser.add_argument("--sample", type=int, help="try this many of each module, drawn at random, instead of all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write what was found as JSON")
    parser.add_argument("--again", action="store_true", help="try those alone that FILE of --output says were missed")
    parser.add_argument("--table", type=Path, metavar="FILE", help="try nothing, print the table of what was found")
    options = parser.parse_args(arguments)
    if options.table is not None:
        print(table(json.loads(options.table.read_text())["modules"]))
        return 0
    if importlib.util.find_spec("cosmic_ray") is None:
        print("mutation testing needs cosmic-ray: pip install 'avgn[mutate]'", file=sys.stderr)
        return 2
    os.chdir(ROOT)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(ROOT))
    for name in HEAVY:
        importlib.import_module(name)
    found: dict[str, Any] = {}
    known = json.loads(options.output.read_text())["modules"] if options.again else {}
    with tempfile.TemporaryDirectory() as folder:
        for module in options.module:
            missed = known.get(module) if options.again else None
            found[module] = measure(module, options.jobs, options.sample, options.seed, Path(folder), missed)
            for row in found[module]["survived"]:
                print(f"{module}:{row['line']}: {row['before']}  ->  {row['after']}", flush=True)
            if options.output is not None:
                write(options.output, found)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The page's words: the same in every language, none outside of the tables, and the language of the browser."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from avgn.runtime.web import site
from tests.web import beside, browser, node
from tests.web.test_page import keep, results, until

LANGUAGES = ("de", "en", "zh")
# what a visitor reads or hears of an element
SPOKEN = {"alt", "aria-description", "aria-label", "aria-roledescription", "placeholder", "title"}
# names, keys and units, the same everywhere
SAME = {"avgn", "F", "S", "R", "Esc", "0"}
# what only programs other than the page bring about, which read English, and what the page asks for in its own words
PROGRAMS = re.compile(
    r"^(a binary|times are|message (kind|type)|sound (of|is|keeps)|text messages|a (name|box) is|the first message"
    r"|.*pictur|the token)"
)
SLOT = re.compile(r"\{(\w+)\}")
ROOT = Path(__file__).parents[2]
LITERAL = re.compile(r"""(["'`])((?:\\.|(?!\1).)*)\1""")
TWO_WORDS = re.compile(r"[^\W\d_]{2,}[.,:]? [^\W\d_(]{2,}")
TALKERS = (
    "app.js",
    "capture.js",
    "devices.js",
    "keep.js",
    "page.js",
    "record.js",
    "view.js",
    "wire.js",
)
# what stands in a line makes it no words for visitors; the console is for developers
CODE = re.compile(r"^\s*(//|\*|/\*)|pen\.font|\bimport\b|console\.info|leaveGpu")

needs_node = pytest.mark.skipif(node.missing() is not None, reason=str(node.missing()))
needs_browser = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))


def in_node(names: str, file: str, value: str, languages: Sequence[str] = ()) -> Any:
    """Return the value of an expression with `names` of a module of the page, in a browser of some languages."""
    script = (
        f"Object.defineProperty(globalThis, 'navigator', {{ value: {{ languages: {json.dumps(languages)} }} }});"
        f"const {{ {names} }} = await import('./{file}'); console.log(JSON.stringify({value}))"
    )
    command = ["node", "--input-type=module", "--no-warnings", "--eval", script]
    done = subprocess.run(command, cwd=site.PAGE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tables_of(name: str) -> dict[str, dict[str, Any]]:
    if reason := node.missing():
        pytest.skip(reason)
    return {language: in_node("default: words", f"{name}-{language}.js", "words") for language in LANGUAGES}


@pytest.fixture(scope="module")
def tables() -> dict[str, dict[str, Any]]:
    return tables_of("words")


def forms(entry: Any) -> list[str]:
    return [entry] if isinstance(entry, str) else list(entry.values())


@pytest.mark.parametrize("name", ["words", "teach-words"])
def test_every_language_says_everything(name: str) -> None:
    tables = tables_of(name)
    for language, table in tables.items():
        assert list(table) == list(tables["en"]), language
        for key, entry in table.items():
            assert isinstance(entry, str) or "other" in entry, (language, key)
            wanted = {name for text in forms(tables["en"][key]) for name in SLOT.findall(text)}
            for text in forms(entry):
                assert text.strip() == text != "", (language, key)
                assert set(SLOT.findall(text)) == wanted, (language, key)
    # a translation that was forgotten
    for language in ("de", "zh"):
        same = [key for key, entry in tables[language].items() if entry == tables["en"][key]]
        assert set(same) <= {"progress"}, (language, same)


def test_the_panel_says_all_of_its_words_and_no_others() -> None:
    """Those of lessons have a speaker of their own: they are absent where nobody may teach."""
    files = [file.read_text(encoding="utf-8") for file in site.PAGE.glob("teach*.js")]
    code = "\n".join(text for text in files if "export default" not in text)
    used = set(re.findall(r"(?<![.\w])tell\(\"(\w+)\"", code)) | {"add", "teach", "failed"}
    (refused,) = re.findall(r"^const REFUSED = \{(.*?)\};", code, re.MULTILINE | re.DOTALL)
    named = dict(re.findall(r"\"?([\w-]+)\"?: \"(\w+)\"", refused))
    assert used | set(named.values()) == set(tables_of("teach-words")["en"])
    # every code that the server gives has words
    places = [*(ROOT / "runtime" / "web").glob("*.py"), ROOT / "avgn" / "teach" / "classroom.py"]
    codes = {
        code for file in places for code in re.findall(r'LessonError\("([\w-]+)"', file.read_text(encoding="utf-8"))
    }
    assert codes - {"failed"} == set(named)


class Words(HTMLParser):
    """What a page says by itself, and the keys of what it has said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.keys: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # what no script has translated: each is in every language
        self.silent += tag in ("noscript", "article")
        for name, value in attrs:
            if name == "data-words" or name.startswith("data-words-"):
                self.keys.append(str(value))
            elif name in SPOKEN:
                self.said.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in ("noscript", "article")

    def handle_data(self, data: str) -> None:
        if data.strip() and not self.silent:
            self.said.append(data.strip())


def keys_of_code() -> Iterator[str]:
    """Every key that code of the page names."""
    yield from ("connecting", "live", "lost", "token", "loading", "starting", "ready", "failed", "refused")
    yield from re.findall(r"return \"(\w+)\"", (node.CLIENT / "src" / "support.ts").read_text(encoding="utf-8"))
    for file in [*site.PAGE.glob("*.js"), node.CLIENT / "src" / "local.ts"]:
        text = file.read_text(encoding="utf-8")
        text = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
        # a wire says things, too
        yield from re.findall(r"(?<![.\w])say\(\s*\"(\w+)\"", text)
        if file.name == "reasons.js":
            yield from re.findall(r", \"(\w+)\"\],$", text, re.MULTILINE)
        for table in re.findall(r"^const (?:STATES|\w*REFUSALS) = \{(.*?)\};", text, re.MULTILINE | re.DOTALL):
            yield from re.findall(r": \"(\w+)\"", table)


def test_no_words_stand_outside_of_the_tables(tables: dict[str, dict[str, Any]]) -> None:
    used = set(keys_of_code())
    for html in ((site.PAGE / "index.html").read_text(encoding="utf-8"), site.index()):
        words = Words()
        words.feed(html)
        assert set(words.said) <= SAME, words.said
        used |= set(words.keys)
    assert used == set(tables["en"])
    for file in [*(site.PAGE / name for name in TALKERS), node.CLIENT / "src" / "local.ts"]:
        text = re.sub(r"\$\{[^}]*\}", "", file.read_text(encoding="utf-8"))
        lines = [line for line in text.splitlines() if not CODE.search(line)]
        literals = [match[2] for line in lines for match in LITERAL.finditer(line)]
        found = [text for text in literals if TWO_WORDS.search(text)]
        assert not found, (file.name, found)
    style = (site.PAGE / "style.css").read_text(encoding="utf-8")
    assert set(re.findall(r"\bcontent: ([^;]+);", style.replace("-content:", ":"))) == {"attr(data-empty)"}


def close_reasons() -> Iterator[str]:
    """Every reason with which a server closes a socket, values filled in."""
    for file in sorted(site.PAGE.parent.glob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or getattr(call.func, "id", "") not in ("WireError", "_close"):
                continue
            reason = call.args[-1]
            if isinstance(reason, ast.Constant):
                yield str(reason.value)
            elif isinstance(reason, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in reason.values)


def refusals_of_the_worker() -> Iterator[str]:
    """Every refusal of the worker, values filled in."""
    for name in ("bundle", "loading", "onnx", "decision", "worker"):
        text = (node.CLIENT / "src" / f"{name}.ts").read_text(encoding="utf-8")
        text = re.sub(r"[\"`] \+\s*[\"`]", "", text)
        yield from (
            re.sub(r"\$\{[^}]*\}", "7", sentence)
            for _, sentence in re.findall(
                r"(?:Error\(|\"(?:memory|engine)\",)\s*([\"`])((?:(?!\1).)* (?:(?!\1).)*[.])\1", text
            )
        )


@needs_node
def test_what_servers_and_workers_say_is_said_in_the_page_s_language() -> None:
    said = [*close_reasons(), *refusals_of_the_worker()]
    assert len(said) > 35
    shown = in_node("inWords", "reasons.js", f"{json.dumps(said)}.map(inWords)", ["xx", "de-AT", "en"])
    as_they_are = [one for one, other in zip(said, shown, strict=True) if one == other]
    unknown = [one for one in as_they_are if not PROGRAMS.match(one)]
    assert not unknown, unknown
    assert "bundle.json: 7, got 7: export the bundle again." not in as_they_are


@needs_node
def test_the_browser_s_languages_choose() -> None:
    wanted = [
        ["de-CH"],
        ["fr", "zh-Hans-CN", "de"],
        ["ZH"],
        ["fr-FR", "it"],
        [],
        ["constructor", "en-GB"],
        ["de", "en"],
    ]
    chosen = in_node("choose", "words.js", f"{json.dumps(wanted)}.map(choose)")
    assert chosen == ["de", "zh", "zh", "en", "en", "en", "de"]


@needs_node
def test_numbers_and_plurals() -> None:
    values = "[say('serverFull', { count: 1 }), say('serverFull', { count: 1200 }), percent(0.456)]"
    assert in_node("percent, say", "words.js", values, ["de"]) == [
        "Der Server ist voll: 1 Besucher ist verbunden.",
        "Der Server ist voll: 1.200 Besucher sind verbunden.",
        "46\N{NO-BREAK SPACE}%",
    ]


PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
CUT_OFF = (
    "[...document.querySelectorAll('button, .button, p:not(.unseen), h2')]"
    ".filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.outerHTML)"
)
LOCALES = {"en": ("en-GB", "en"), "de": ("de-AT", "de"), "zh": ("zh-CN", "zh-Hans")}


@needs_browser
@pytest.mark.parametrize("served", [True, False], ids=["served", "site"])
def test_a_phone_in_each_language(
    served: bool, request: pytest.FixtureRequest, tables: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    if served:
        visit(request.getfixturevalue("url"), "served", tables, tmp_path)
    else:
        with beside.hosted(request.getfixturevalue("tiny_site"), isolated=True) as url:
            visit(url, "site", tables, tmp_path)


def visit(url: str, name: str, tables: dict[str, dict[str, Any]], folder: Path) -> None:
    with browser.chromium() as first:
        for language, (locale, lang) in LOCALES.items():
            words = tables[language]
            context = first.context.browser.new_context(locale=locale, permissions=["camera", "microphone"], **PHONE)
            page = context.new_page()
            page.add_init_script(
                "window.results = []; addEventListener('avgn-result', (one) => results.push(one.detail))"
            )
            page.goto(url)
            page.wait_for_selector("#start:enabled", timeout=90_000)
            assert page.get_attribute("html", "lang") == lang and page.title() == words["title"]
            assert page.inner_text("#start") == words["start"]
            assert page.inner_text("#connection") == words["live" if name == "served" else "ready"]
            assert page.get_attribute("#picture", "aria-label") == words["pictureLabel"]
            keep(page, f"{name}-{language}-before", folder)
            page.tap("#start")
            results(page, 3, 90.0)
            until(page, "parseInt(document.getElementById('fps').textContent) > 0", 60.0)
            keep(page, f"{name}-{language}", folder)
            seen = page.inner_text("body")
            privacy = words["privacyServer" if name == "served" else "privacyDevice"]
            assert privacy in seen and words["stop"] in seen and words["outside"] in seen
            # nothing is cut off or runs out of the screen, however long the words are
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.evaluate(CUT_OFF) == []
            context.close()

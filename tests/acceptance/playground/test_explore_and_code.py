"""Sheets of seeds and steps, and the code to copy."""

import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.acceptance.browser import visit
from tests.acceptance.processes import LIMIT_S, Server, environment
from tests.image_files import read_metadata
from tests.programs import need

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


def test_sheet_is_one_group_and_is_saved_as_one_png(browser: Browser, server: Server, tmp_path: Path) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.set(size=(512, 512))
        seen.open("explore")
        seen.page.fill("#prompts", "a red apple, blue background\na cat in a meadow")
        seen.page.select_option("#seeds", "3")
        expect(seen.page.locator("#explore-note")).to_contain_text("6 images of 512 \u00d7 512")
        seen.page.click("#explore-form button.primary")
        expect(seen.page.locator("#sheet img")).to_have_count(6)
        assert seen.page.locator("#sheet thead th").all_inner_texts() == ["seed 0", "seed 1", "seed 2"]
        with seen.page.expect_download() as download:
            seen.page.get_by_text("Download as one PNG").click()
        download.value.save_as(tmp_path / "sheet.png")
    groups = server.query("SELECT group_id, count(*) FROM jobs WHERE group_id LIKE 'sheet-%' GROUP BY group_id")
    assert [count for _, count in groups] == [6]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 3 * 320
        assert len(sheet.convert("RGB").resize((60, 40)).getcolors(2400)) > 50


def test_sheet_survives_reload_and_its_cells_can_be_used(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.open("explore")
        seen.page.select_option("#sheet-size", "16:9")
        seen.page.fill("#prompts", "a green apple")
        seen.page.select_option("#seeds", "2")
        seen.page.click("#explore-form button.primary")
        expect(seen.page.locator("#sheet img").first).to_be_in_viewport()
        seen.page.reload()
        seen.signed_in()
        expect(seen.page.locator("#sheet img")).to_have_count(2)
        assert seen.page.input_value("#prompts") == "a green apple"
        seen.page.locator("#sheet .frame").nth(1).click()
        seen.page.locator("#viewer").get_by_text("Use these settings").click()
        expect(seen.page.locator("#prompt")).to_have_value("a green apple")
        assert seen.page.input_value("#seed") == "1"
        assert seen.page.locator("#ratio-16-9").is_checked()


def test_cancel_all_stops_sheet_of_steps(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.set(size=(1536, 1536))
        seen.open("explore")
        seen.page.check('input[name="axis"][value="steps"]')
        seen.page.fill("#prompts", "\n".join(f"a star at night {i}" for i in range(8)))
        seen.page.click("#explore-form button.primary")
        seen.page.locator("#sheet img").first.wait_for()
        assert seen.page.locator("#sheet thead th").all_inner_texts()[:2] == ["1 step", "2 steps"]
        seen.page.get_by_text("Cancel all").click()
        expect(seen.page.get_by_text("Cancel all")).to_be_hidden()
        assert seen.page.locator("#sheet td", has_text="cancelled").count() > 0
    states = server.query("SELECT DISTINCT state FROM jobs WHERE state IN ('queued', 'running')")
    assert states == []


def test_copied_code_runs_in_four_languages(browser: Browser, server: Server, tmp_path: Path) -> None:
    commands = {
        "curl": ["bash", "{file}"],
        "Python, requests": [sys.executable, "{file}"],
        "Python, OpenAI's SDK": [sys.executable, "{file}"],
        "JavaScript": [need("node", "runs the JavaScript"), "{file}"],
    }
    need("curl", "runs the first snippet")
    with visit(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as seen:
        seen.sign_in(server.key)
        seen.page.fill("#prompt", 'it\'s a "blue" car, $5 `x` \\n')
        seen.set(size=(512, 512), count=2, seed=2**63 - 5)
        seen.open("code")
        for name, command in commands.items():
            seen.page.locator(".snippet", has=seen.page.get_by_text(name, exact=True)).locator("button").click()
            expect(seen.page.locator("#said")).to_have_text("Copied")
            file = tmp_path / f"snippet{len(name)}{'.js' if name == 'JavaScript' else ''}"
            file.write_text(seen.page.evaluate("navigator.clipboard.readText()"), "utf-8")
            run = [part.format(file=file) for part in command]
            variables = environment(ALLAPRIMA_KEY=server.key, NO_COLOR="1")
            done = subprocess.run(run, env=variables, capture_output=True, text=True, timeout=LIMIT_S, check=False)
            assert done.returncode == 0, (name, done.stderr)
            links = re.findall(rf"{server.url}/files/[^\s\"',]+", done.stdout)
            found = [read_metadata(httpx2.get(link).content) for link in dict.fromkeys(links)]
            assert [(one["seed"], one["prompt"]) for one in found] == [
                (2**63 - 5, 'it\'s a "blue" car, $5 `x` \\n'),
                (2**63 - 4, 'it\'s a "blue" car, $5 `x` \\n'),
            ], name
            seen.page.evaluate("document.getElementById('said').textContent = ''")

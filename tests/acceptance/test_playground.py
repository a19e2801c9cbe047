"""The playground in a real browser, against a real server that paints with the built-in model."""

import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, expect

from acceptance.browser import Visit, chromium, visit
from acceptance.processes import LIMIT_S, Server, allaprima, environment, until
from allaprima.api.web.routes import FOLDER
from image_files import read_metadata
from programs import need

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
expect.set_options(timeout=LIMIT_S * 1000)

#: A request that takes a while, so that there is time to act in the middle of it.
LONG = {"steps": 12, "count": 4, "width": 1536, "height": 1536}
VIEWS = ("paint", "gallery", "explore", "code", "usage")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server whose pictures cost something."""
    prices = '{"flux/schnell": {"megapixel": 0.003}, "allaprima/sketch": {"megapixel": 0.001}}'
    started = serve_module(tmp_path_factory.mktemp("playground") / "data", ALLAPRIMA_BILLING__PRICES=prices)
    account = started.query("SELECT id FROM accounts")[0][0]
    done = allaprima(
        "accounts", "credit", account, "25", "--data-dir", started.data_dir, folder=started.data_dir.parent
    )
    assert done.returncode == 0, done.stderr
    return started


def test_an_empty_server_greets_with_examples_and_a_click_paints_one(
    browser: Browser, serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve(tmp_path / "data")
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        examples = seen.page.locator(".greeting button")
        expect(examples).to_have_count(3)
        examples.first.click()
        assert seen.finished().get_attribute("alt") == examples_text(seen)
        expect(seen.page.locator(".greeting")).to_have_count(0)


def examples_text(seen: Visit) -> str:
    return seen.page.locator(".run h3").first.inner_text()


def test_a_picture_emerges_in_previews_before_it_is_finished(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.paint("a fox in the forest", seed=7, **LONG)
        seen.previewed()
        image = seen.finished()
        assert f"{server.url}/files/" in image.get_attribute("src")
        assert int(seen.page.locator(".run").first.get_attribute("data-previews")) >= 1
        expect(seen.page.locator(".run .state").first).to_contain_text("Painted by allaprima/sketch")
        assert image.evaluate("image => image.naturalWidth") == 1536
        assert "seed 7 · 12 steps" in seen.page.locator(".run figcaption").first.inner_text()


def test_many_pictures_at_once_leave_a_connection_for_cancelling(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        for number in range(8):
            seen.paint(f"a star at night {number}", **LONG)
        expect(seen.page.locator(".run")).to_have_count(8)
        # The newest first: they wait behind the others, however fast those are painted.
        for number in (7, 6):
            card = seen.page.locator(".run", has_text=f"a star at night {number}")
            card.locator("header button").click()
            expect(card.locator(".state")).to_have_text("Cancelled.")


def test_the_skip_link_leads_into_the_view_and_not_out_of_it(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.open("gallery")
        seen.page.locator(".skip").focus()
        seen.page.keyboard.press("Enter")
        expect(seen.page.locator("#main")).to_be_focused()
        expect(seen.page.locator("#gallery")).to_be_visible()


def test_another_key_after_signing_out_sees_nothing_of_the_first(browser: Browser, server: Server) -> None:
    made = allaprima("keys", "create", "--data-dir", server.data_dir, folder=server.data_dir.parent)
    other = re.findall(r"ap_[0-9A-Za-z]{36}", made.stdout)[0]
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.paint("a secret lion", **LONG)
        seen.previewed()
        seen.page.click("#sign-out")
        seen.page.locator("#sign-in").wait_for()
        seen.sign_in(other)
        expect(seen.page.locator(".run")).to_have_count(0)
        assert "secret" not in seen.page.content()
        assert seen.page.input_value("#prompt") == ""


def test_a_running_job_is_cancelled_at_once(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.paint("a rocket at night", **LONG)
        seen.previewed()
        seen.page.click(".run header button")
        expect(seen.page.locator(".run .state").first).to_have_text("Cancelled.")
        expect(seen.page.locator(".run").first).to_have_attribute("aria-busy", "false")
    assert server.query("SELECT state FROM jobs ORDER BY id DESC LIMIT 1") == [("cancelled",)]


def test_the_gallery_survives_a_reload_and_shows_in_another_browser(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key, is_remembered=True)
        seen.paint("a penguin in the snow", seed=11)
        seen.finished()
        seen.page.reload()
        seen.page.locator("#who").wait_for()
        seen.open("gallery")
        newest = seen.page.locator("#pictures figure").first
        expect(newest).to_contain_text("a penguin in the snow")
        expect(newest).to_contain_text("seed 11")
    with visit(browser, server.url) as other:
        other.sign_in(server.key)
        other.open("gallery")
        expect(other.page.locator("#pictures figure").first).to_contain_text("seed 11")


def test_a_keys_gallery_shows_what_other_keys_painted_only_if_asked(browser: Browser, server: Server) -> None:
    made = allaprima("keys", "create", "--data-dir", server.data_dir, folder=server.data_dir.parent)
    other = re.findall(r"ap_[0-9A-Za-z]{36}", made.stdout)[0]
    painted(server, prompt="a snail in a meadow", size="256x256", model="sketch")
    with visit(browser, server.url) as seen:
        seen.sign_in(other)
        seen.open("gallery")
        expect(seen.page.locator("#pictures")).to_contain_text("Nothing was painted yet")
        seen.page.check("#of-account")
        expect(seen.page.locator("#pictures figure").first).to_contain_text("a snail in a meadow")


def test_a_dropped_png_gives_its_settings_back_to_the_last_digit(browser: Browser, server: Server) -> None:
    seed = 2**63 - 2
    picture = painted(server, prompt="a crab, “on” a beach 🏖", seed=seed, size="512x320", steps=3, model="sketch")
    assert read_metadata(picture)["seed"] == seed
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.open("gallery")
        seen.drop("any name.png", picture)
        seen.page.locator("#paint").wait_for()
        assert seen.page.input_value("#prompt") == "a crab, “on” a beach 🏖"
        assert seen.page.input_value("#seed") == str(seed)
        assert (seen.page.input_value("#width"), seen.page.input_value("#height")) == ("512", "320")
        assert seen.page.input_value("#steps") == "3"
        assert seen.page.input_value("#model") == "allaprima/sketch"
        seen.page.press("#prompt", "Control+Enter")
        source = seen.finished().get_attribute("src")
        assert str(seed) in seen.page.locator(".run figcaption").first.inner_text()
        assert httpx2.get(source).content == picture


def test_a_file_without_settings_is_refused_in_words(browser: Browser, server: Server) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.drop("other.png", file.getvalue())
        expect(seen.page.locator("#notice")).to_contain_text("holds no settings")


def painted(server: Server, **body: object) -> bytes:
    answer = server.post(server.key, **body)
    assert answer.status_code == 200, answer.text
    return httpx2.get(answer.json()["images"][0]["url"]).content


def test_two_pictures_are_compared_side_by_side(browser: Browser, server: Server) -> None:
    for steps in (2, 4):
        painted(server, prompt="a house in the snow", seed=5, steps=steps, size="256x256", model="sketch")
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.open("gallery")
        for i in (0, 1):
            seen.page.locator("#pictures .choose").nth(i).click()
        seen.page.click("#compare")
        expect(seen.page.locator("#viewed img")).to_have_count(2)
        expect(seen.page.locator("#viewer-title")).to_have_text("Compared: they differ in steps")
        assert seen.page.locator("#viewed mark").all_inner_texts() == ["steps 4", "steps 2"]
        seen.page.keyboard.press("Escape")
        expect(seen.page.locator("#viewer")).to_be_hidden()


def test_a_picture_can_be_deleted_and_is_gone_from_the_server(browser: Browser, server: Server) -> None:
    painted(server, prompt="a ghost in the forest", size="256x256", model="sketch")
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.open("gallery")
        figure = seen.page.locator("#pictures figure").first
        source = figure.locator("img").get_attribute("src")
        figure.get_by_text("Delete", exact=True).click()
        figure.get_by_text("Really delete?").click()
        expect(seen.page.locator(f'img[src="{source}"]')).to_have_count(0)
    assert httpx2.get(source).status_code == 404


def test_a_grid_is_painted_as_one_group_and_saved_as_one_png(browser: Browser, server: Server, tmp_path: Path) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.page.select_option("#preset", "512x512")
        seen.open("explore")
        seen.page.fill("#prompts", "a red apple, blue background\na cat in a meadow")
        seen.page.select_option("#seeds", "3")
        expect(seen.page.locator("#explore-note")).to_contain_text("6 pictures of 512 \u00d7 512")
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


def test_steps_of_one_seed_make_a_sheet_and_one_cancel_stops_what_is_left(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.page.fill("#width", "1536")
        seen.page.fill("#height", "1536")
        seen.page.press("#height", "Tab")
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


def test_the_copied_code_runs_as_it_stands_in_all_four_languages(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
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
        seen.page.select_option("#preset", "512x512")
        seen.page.select_option("#count", "2")
        seen.page.fill("#seed", str(2**63 - 5))
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


def test_a_wrong_key_is_refused_in_words_and_not_kept(browser: Browser, server: Server) -> None:
    with visit(browser, server.url, faults_expected=("401",)) as seen:
        seen.page.fill("#key", "ap_" + "0" * 36)
        seen.page.check("#remember")
        seen.page.click("#sign-in-form button")
        expect(seen.page.locator("#notice")).to_contain_text("Sign in with another one")
        assert seen.page.evaluate("localStorage.length + sessionStorage.length") == 0
        assert seen.page.locator("#views a[href='#paint']").is_hidden()


def test_a_key_is_forgotten_unless_it_is_to_be_remembered_and_is_in_no_address(
    browser: Browser, server: Server
) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        for view in VIEWS:
            seen.open(view)
        assert seen.page.evaluate("JSON.stringify(localStorage)") == "{}"
        assert not any(server.key in url for url in (*seen.requests, seen.page.url))
        seen.page.reload()
        seen.page.locator("#sign-in").wait_for()
        seen.sign_in(server.key, is_remembered=True)
        seen.page.reload()
        seen.page.locator("#who").wait_for()
        seen.page.click("#sign-out")
        seen.page.locator("#sign-in").wait_for()
        assert seen.page.evaluate("JSON.stringify(localStorage)") == "{}"


def test_a_lost_connection_in_the_middle_of_a_job_is_recovered_from(
    browser: Browser, serve: Callable[..., Server], tmp_path: Path
) -> None:
    first = serve(tmp_path / "data")
    port, key = first.port, first.key
    with visit(browser, first.url, faults_expected=("ERR_",)) as seen:
        seen.sign_in(key)
        seen.paint("a sailboat on the sea", **LONG)
        seen.previewed()
        first.kill()
        expect(seen.page.locator(".run .state").first).to_contain_text("connection was lost")
        serve(tmp_path / "data", "--port", port)
        seen.finished()
        expect(seen.page.locator(".run figure.picture .frame img")).to_have_count(4)


def test_a_reload_in_the_middle_of_a_job_goes_on_watching_it(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key, is_remembered=True)
        seen.paint("a whale on the sea", **LONG)
        seen.previewed()
        seen.page.reload()
        seen.finished()
        expect(seen.page.locator(".run h3").first).to_have_text("a whale on the sea")


def test_sizes_snap_visibly_and_tokens_are_counted_with_a_warning(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        page = seen.page
        page.fill("#width", "1000")
        page.press("#width", "Tab")
        assert page.input_value("#width") == "992"
        expect(page.locator("#size-note")).to_contain_text("1000 became 992")
        page.select_option("#ratio", "16:9")
        assert int(page.input_value("#width")) % 32 == int(page.input_value("#height")) % 32 == 0
        assert page.input_value("#preset") == ""
        page.select_option("#preset", "1440x512")
        assert (page.input_value("#width"), page.input_value("#height")) == ("1440", "512")
        page.fill("#prompt", "a cat")
        expect(page.locator("#tokens")).to_contain_text("2 of ")
        expect(page.locator("#cost")).to_contain_text("$")
        page.fill("#prompt", "a cat " * 200)
        expect(page.locator("#tokens")).to_contain_text("is not read")
        page.fill("#seed", "minus one")
        assert not page.locator("#seed").evaluate("field => field.checkValidity()")


def test_a_locked_seed_stays_and_shuffle_draws_another(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.page.check("#lock")
        seen.paint("a star at night", preset="512x512")
        seen.finished()
        kept = seen.page.input_value("#seed")
        assert kept.isdigit()
        assert f"seed {kept}" in seen.page.locator(".run figcaption").first.inner_text()
        seen.page.click("#shuffle")
        assert seen.page.input_value("#seed") != kept


def test_usage_shows_what_was_spent_and_the_latest_requests(browser: Browser, server: Server) -> None:
    painted(server, prompt="a bus in the city", size="512x512", model="sketch")
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.open("usage")
        expect(seen.page.locator("#account")).to_contain_text(re.compile(r"Balance of the account\s*\$2\d"))
        expect(seen.page.locator("#chart rect[class^='c']").first).to_be_attached()
        seen.page.click("#days summary")
        expect(seen.page.locator("#days td").nth(1)).to_have_text(re.compile("allaprima/sketch|flux/schnell"))
        expect(seen.page.locator("#recent tr").nth(1)).to_contain_text("a bus in the city")


def test_a_management_key_makes_limits_and_disables_keys(browser: Browser, server: Server) -> None:
    account = server.query("SELECT id FROM accounts")[0][0]
    folder = server.data_dir.parent
    made = allaprima(
        "keys", "create", "--account", account, "--management", "--data-dir", server.data_dir, folder=folder
    )
    manager = re.findall(r"ap_[0-9A-Za-z]{36}", made.stdout)[0]
    with visit(browser, server.url, faults_expected=("403", "401")) as seen:
        seen.sign_in(manager)
        seen.page.locator("#keys").wait_for()
        assert seen.page.locator("#views a[href='#paint']").is_hidden()
        seen.page.fill("#key-name", "a colleague")
        seen.page.fill("#key-limit", "5")
        seen.page.click("#new-key button")
        key = seen.page.locator("#made-key code").inner_text()
        prefix = key[3:11]
        row = seen.page.locator("#key-list tr", has_text=prefix)
        expect(row).to_contain_text("a month")
        assert status(server, key) == 200
        row.locator("input").fill("7.5")
        row.get_by_text("Set limit").click()
        until(lambda: limit_of(server, key) == 7.5 or None, "the limit")
        seen.page.locator(f'button[aria-label="Disable {prefix}"]').click()
        expect(row).to_contain_text("disabled")
        assert status(server, key) == 401
        seen.page.locator(f'button[aria-label="Enable {prefix}"]').click()
        expect(row).to_contain_text("good")
        assert status(server, key) == 200


def status(server: Server, key: str) -> int:
    return httpx2.get(f"{server.url}/v1/key", headers={"authorization": f"Bearer {key}"}).status_code


def limit_of(server: Server, key: str) -> float | None:
    found = httpx2.get(f"{server.url}/v1/key", headers={"authorization": f"Bearer {key}"}).json()["data"]["limit"]
    return found and found["threshold"]


def test_everything_works_with_the_keyboard_alone(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        keyboard = seen.page.keyboard
        expect(seen.page.locator("#key")).to_be_focused()
        keyboard.type(server.key)
        keyboard.press("Enter")
        expect(seen.page.locator("#prompt")).to_be_focused()
        keyboard.type("a robot in space")
        keyboard.press("Control+Enter")
        seen.finished()
        for _ in range(60):
            keyboard.press("Tab")
            if seen.page.evaluate("document.activeElement.className") == "frame":
                break
        keyboard.press("Enter")
        expect(seen.page.locator("#viewer")).to_be_visible()
        keyboard.press("Escape")
        expect(seen.page.locator("#viewer")).to_be_hidden()
        assert seen.page.evaluate("document.activeElement.className") == "frame"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_every_view_is_clean_by_axe_and_fits_the_screen(
    browser: Browser, server: Server, scheme: str, size: tuple[int, int]
) -> None:
    axe = Axe()
    viewport = {"width": size[0], "height": size[1]}
    painted(server, prompt="a fox at sunset", size="256x256", model="sketch")
    with visit(browser, server.url, color_scheme=scheme, viewport=viewport) as seen:

        def look(view: str) -> None:
            found = axe.run(seen.page)
            assert found.violations_count == 0, f"{view}: {found.generate_report()}"
            wide = seen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{view} is {wide} px too wide"

        look("sign-in")
        seen.sign_in(server.key)
        for view in VIEWS:
            seen.open(view)
            if view == "paint":
                seen.paint("a fox at sunset", preset="512x512")
                seen.finished()
            if view == "gallery":
                seen.page.locator("#pictures figure").first.wait_for()
                seen.page.locator("#pictures .choose").first.click()
            if view == "usage":
                seen.page.locator("#recent table").wait_for()
            look(view)
        seen.open("gallery")
        seen.page.locator("#pictures .frame").first.click()
        look("viewer")


def test_scripts_and_styles_are_under_150_kilobytes() -> None:
    files = [file for file in FOLDER.rglob("*") if file.suffix in (".js", ".css", ".html")]
    assert sum(file.stat().st_size for file in files) < 150_000


def test_no_script_or_style_stands_in_the_page_and_the_policy_allows_none(server: Server) -> None:
    answer = httpx2.get(f"{server.url}/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", answer.text)

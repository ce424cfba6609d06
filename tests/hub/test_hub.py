"""Models by name: every notation, the cache, what happens offline, and what is said when a model cannot be had."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_models
from hub_server import Hub, serve, use
from huggingface_hub import HfApi, constants, file_download

from maskprobe import MaskProbeLlama, embedded_model
from maskprobe.errors import HubError, MaskProbeError, ModelError
from maskprobe.hub import cached_models, resolve_model
from maskprobe.speculation import Speculation

LOADED = {"n_ctx": 512, "n_threads": 1, "speculation": Speculation(budget=4)}


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


@pytest.fixture
def hub(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """An empty hub, and an empty cache."""
    server.repos.clear()
    server.requests.clear()
    server.faults.clear()
    server.cut_after = server.status = None
    use(server.url, tmp_path / "cache", monkeypatch)
    return server


def quants(*names: str) -> dict[str, bytes]:
    """Files of a repository, each with its own content."""
    return {name: b"GGUF" + name.encode() for name in names}


def nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


# --- notations ------------------------------------------------------------------------------------------


def test_none_and_smollm2_are_the_embedded_model(hub: Hub) -> None:
    assert resolve_model(None) == resolve_model("smollm2") == resolve_model("SmolLM2") == embedded_model()
    assert hub.requests == []


def test_paths_are_themselves(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "repo").touch()
    (tmp_path / "qwen3-8b").touch()
    assert resolve_model("user/repo") == Path("user/repo")
    assert resolve_model("qwen3-8b") == Path("qwen3-8b")
    assert resolve_model(Path("user/other")) == Path("user/other")
    for name in ("nowhere.gguf", "user/nowhere.GGUF", "/nowhere", "./no/where", "a\\b"):
        assert resolve_model(name) == Path(name)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["User/Model-GGUF:Q8_0", "User/Model-GGUF:q8_0", "User/Model-GGUF:Q8_0@main"])
def test_a_quant_is_found_in_either_case(hub: Hub, name: str) -> None:
    hub.add("User/Model-GGUF", quants("m-IQ8_0.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-Q8_0_L.gguf", "README.md"))
    path = resolve_model(name)
    assert path.name == "m-Q8_0.gguf"
    assert path.read_bytes() == b"GGUFm-Q8_0.gguf"
    assert hub.downloads() == ["/User/Model-GGUF/resolve/main/m-Q8_0.gguf"]


def test_lower_case_files_are_found_by_upper_case_quants(hub: Hub) -> None:
    hub.add("u/m", quants("m.q4_k_m.gguf", "m.bf16.gguf", "m.f16.gguf"))
    assert resolve_model("u/m:F16").name == "m.f16.gguf"
    assert resolve_model("u/m").name == "m.q4_k_m.gguf"


def test_without_a_quant_q4_k_m_is_taken(hub: Hub) -> None:
    hub.add("u/m", quants("a-Q2_K.gguf", "a-UD-Q4_K_M.gguf", "a-Q4_K_M.gguf", "mmproj-Q4_K_M.gguf"))
    assert resolve_model("u/m").name == "a-Q4_K_M.gguf"


def test_without_q4_k_m_the_first_model_file_is_taken(hub: Hub) -> None:
    hub.add("u/m", quants("imatrix.gguf", "mmproj-m-f16.gguf", "m-Q5_0.gguf", "m-Q8_0.gguf", "config.json"))
    assert resolve_model("u/m").name == "m-Q5_0.gguf"


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub) -> None:
    first = hub.add("u/m", {"m-Q8_0.gguf": b"GGUF first"}, "refs/pr/3")
    hub.add("u/m", {"m-Q8_0.gguf": b"GGUF second"})
    assert resolve_model("u/m:Q8_0").read_bytes() == b"GGUF second"
    assert resolve_model("u/m:Q8_0@refs/pr/3").read_bytes() == b"GGUF first"
    assert resolve_model("u/m@refs/pr/3").read_bytes() == b"GGUF first"
    assert resolve_model("u/m", revision=first).read_bytes() == b"GGUF first"
    with pytest.raises(ValueError, match="another revision than 'v2'"):
        resolve_model("u/m@v1", revision="v2")


def test_catalogue_names_are_repositories(hub: Hub) -> None:
    hub.add("Qwen/Qwen3-8B-GGUF", quants("Qwen3-8B-Q4_K_M.gguf", "Qwen3-8B-Q8_0.gguf"))
    hub.add("Qwen/Qwen3-0.6B-GGUF", quants("Qwen3-0.6B-F16.gguf", "Qwen3-0.6B-Q8_0.gguf"))
    assert resolve_model("qwen3-8b").name == "Qwen3-8B-Q4_K_M.gguf"
    assert resolve_model("Qwen3-8B:q8_0").name == "Qwen3-8B-Q8_0.gguf"
    assert resolve_model("qwen3-0.6b").name == "Qwen3-0.6B-Q8_0.gguf"


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("qwen3-8", ModelError, "did you mean qwen3-8b"),
        ("xyzzy", ModelError, "`maskprobe models` lists"),
        ("a/b/c", ValueError, "names no model"),
        ("u/m:Q4:Q5", ValueError, "names no model"),
        ("u/m@main:Q4_0", ValueError, "is no revision"),
        ("u/m@../../x", ValueError, "is no revision"),
        ("smollm2:Q8_0", ValueError, "embedded model is one file"),
    ],
)
def test_a_malformed_name_is_one_clear_error(hub: Hub, name: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        resolve_model(name)
    assert "\n" not in str(caught.value)
    assert hub.requests == []


# --- split files and folders ----------------------------------------------------------------------------


def test_all_parts_of_a_split_model_come_and_it_loads(
    hub: Hub, tiny_path: Callable[[str], Path], tmp_path: Path
) -> None:
    first = tiny_models.split_gguf(tiny_path("llama"), tmp_path, 3)
    parts = {f"Q4_K_M/{path.name}": path.read_bytes() for path in sorted(tmp_path.glob(f"{first.name[:-19]}*.gguf"))}
    assert len(parts) == 3
    hub.add("u/m", parts | quants("Q8_0/m-00001-of-00002.gguf", "Q8_0/m-00002-of-00002.gguf"))
    with MaskProbeLlama.from_hub("u/m", **LOADED) as llm:
        assert llm.model_path.parts[-2:] == ("Q4_K_M", first.name)
        assert llm.generate("Hello", max_tokens=4).tokens
    assert sorted(hub.downloads()) == sorted(
        f"/u/m/resolve/{ref}/{name}" for ref, name in zip(refs(hub), parts, strict=True)
    )


def refs(hub: Hub) -> list[str]:
    """The first part comes from the branch, the others from the commit that it was in."""
    commit = hub.repos["u/m"].refs["main"]
    return ["main", commit, commit]


def test_a_split_model_that_lacks_a_part_is_refused(hub: Hub) -> None:
    hub.add("u/m", quants("m-Q8_0-00001-of-00002.gguf"))
    with pytest.raises(HubError, match=r"lacks m-Q8_0-00002-of-00002\.gguf"):
        resolve_model("u/m:Q8_0")
    assert hub.downloads() == []


def test_a_folder_names_the_quant_too(hub: Hub) -> None:
    hub.add("u/m", quants("BF16/m-00001-of-00002.gguf", "BF16/m-00002-of-00002.gguf", "m-Q4_0.gguf"))
    assert resolve_model("u/m:bf16").parts[-2:] == ("BF16", "m-00001-of-00002.gguf")
    assert cached_models()[0].name == "u/m:BF16"


# --- the cache ------------------------------------------------------------------------------------------


def test_what_is_cached_is_not_downloaded_again(hub: Hub) -> None:
    hub.add("u/m", quants("m-Q8_0.gguf"))
    assert resolve_model("u/m") == resolve_model("u/m")
    assert len(hub.downloads()) == 1


def test_a_new_version_on_the_hub_is_noticed(hub: Hub) -> None:
    hub.add("u/m", {"m-Q8_0.gguf": b"GGUF old"})
    assert resolve_model("u/m").read_bytes() == b"GGUF old"
    hub.add("u/m", {"m-Q8_0.gguf": b"GGUF new", "note.txt": b""})
    assert resolve_model("u/m").read_bytes() == b"GGUF new"


def test_offline_a_cached_model_needs_no_request(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.add("u/m", quants("m-Q4_K_M.gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"))
    plain, split = resolve_model("u/m"), resolve_model("u/m:Q8_0")
    hub.requests.clear()
    assert resolve_model("u/m", local_files_only=True) == plain
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve_model("u/m") == plain
    assert resolve_model("u/m:q8_0") == split
    assert resolve_model(f"u/m@{commit}") == plain
    for name, text in {
        "u/other": "u/other is not in the cache",
        "u/m@v2": "u/m@v2 is not in the cache",
        "u/m:Q5_0": "u/m in the cache has no Q5_0; it has Q4_K_M, Q8_0",
    }.items():
        with pytest.raises(HubError, match=text):
            resolve_model(name)
    assert hub.requests == []


def test_offline_half_a_split_model_is_not_taken(hub: Hub) -> None:
    hub.add("u/m", quants("m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"))
    path = resolve_model("u/m")
    path.with_name("m-Q8_0-00002-of-00002.gguf").unlink()
    with pytest.raises(HubError, match=r"in the cache lacks m-Q8_0-00002-of-00002\.gguf"):
        resolve_model("u/m", local_files_only=True)
    assert cached_models() == []


def test_without_network_the_cache_is_taken_with_a_warning(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("u/m", quants("m-Q8_0.gguf"))
    path = resolve_model("u/m")
    hub.status = 503
    with pytest.warns(RuntimeWarning, match="answers 503 for u/m; try again later; the cache's files are used"):
        assert resolve_model("u/m") == path
    nothing_listens(monkeypatch)
    with pytest.warns(RuntimeWarning, match="check the network"):
        assert resolve_model("u/m") == path


def test_cached_models_are_listed_by_the_name_that_resolves_to_them(hub: Hub, tmp_path: Path) -> None:
    hub.add("u/m", quants("m-Q8_0.gguf", "mmproj-F16.gguf"))
    hub.add("u/split", quants("s-Q4_0-00001-of-00002.gguf", "s-Q4_0-00002-of-00002.gguf"), "v1")
    names = ["u/m:Q8_0", "u/split:Q4_0@v1"]
    paths = [resolve_model(name) for name in names]
    assert [(model.name, model.path) for model in cached_models()] == list(zip(names, paths, strict=True))
    assert [model.bytes for model in cached_models()] == [15, 60]
    assert cached_models(tmp_path / "nowhere") == []


def test_a_download_that_breaks_off_goes_on_where_it_was(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"GGUF" + bytes(range(256)) * 64
    hub.add("u/m", {"m-Q8_0.gguf": data})
    hub.cut_after = 10_000
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    assert resolve_model("u/m").read_bytes() == data
    assert [headers.get("range") for method, path, headers in hub.requests if path in hub.downloads()[:1]][-2:] == [
        None,
        "bytes=10000-",
    ]


def test_parts_that_have_come_stay_when_another_fails(hub: Hub) -> None:
    files = quants("m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf")
    hub.add("u/m", files)
    hub.faults["m-Q8_0-00002-of-00002.gguf"] = 404
    assert "answers 404 for u/m" in refused("u/m")
    hub.faults.clear()
    path = resolve_model("u/m")
    assert [path.with_name(name).read_bytes() for name in files] == list(files.values())
    assert [download.rsplit("/")[-1] for download in hub.downloads()] == list(files)


def test_a_given_cache_folder_is_used(hub: Hub, tmp_path: Path) -> None:
    hub.add("u/m", quants("m-Q8_0.gguf"))
    path = resolve_model("u/m", cache_dir=tmp_path / "mine")
    assert path.is_relative_to(tmp_path / "mine")
    assert resolve_model("u/m", cache_dir=tmp_path / "mine", local_files_only=True) == path
    assert not (tmp_path / "cache").exists()


# --- what cannot be had ---------------------------------------------------------------------------------


def refused(name: str, **options: object) -> str:
    """The one line that says why."""
    with pytest.raises(HubError) as caught:
        resolve_model(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_quant_tells_what_there_is(hub: Hub) -> None:
    hub.add(
        "u/m", quants("m-Q4_K_M.gguf", "m-UD-Q2_K_XL.gguf", "odd.gguf", "mmproj-F16.gguf", "s-F16-00001-of-00001.gguf")
    )
    assert refused("u/m:Q5_K_M") == "u/m has no Q5_K_M; it has Q4_K_M, UD-Q2_K_XL, odd.gguf, F16"


def test_a_quant_is_a_whole_word(hub: Hub) -> None:
    hub.add("u/m", quants("m-IQ4_0.gguf", "m-Q4_0_8_8.gguf", "m-BF16.gguf"))
    assert refused("u/m:Q4_0") == "u/m has no Q4_0; it has BF16, IQ4_0, Q4_0_8_8"
    assert "u/m has no F16" in refused("u/m:F16")


def test_a_repository_without_models_is_refused(hub: Hub) -> None:
    hub.add("u/m", quants("model.safetensors", "mmproj-F16.gguf"))
    assert "no GGUF model; look for a repository whose name ends in -GGUF" in refused("u/m")


def test_a_missing_repository_or_revision_is_named(hub: Hub) -> None:
    hub.add("u/m", quants("m-Q8_0.gguf"))
    assert f"u/missing is no file and no repository of {hub.url}" in refused("u/missing")
    assert "u/m has no revision 'v9'" in refused("u/m@v9")
    assert "cannot be a repository's name" in refused("u/m--x")


def test_gated_and_private_repositories_ask_for_a_token(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.add("u/gated", quants("m-Q8_0.gguf"), token="hf_right", gated=True)
    hub.add("u/private", quants("m-Q8_0.gguf"), token="hf_right")
    assert f"u/gated is gated; accept its terms at {hub.url}/u/gated" in refused("u/gated")
    assert "set HF_TOKEN" in refused("u/private")
    assert resolve_model("u/gated", token="hf_right").name == "m-Q8_0.gguf"
    assert resolve_model("u/private", token="hf_right", cache_dir=tmp_path / "other").name == "m-Q8_0.gguf"
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    hub.requests.clear()
    assert resolve_model("u/private").name == "m-Q8_0.gguf"
    assert {headers.get("authorization") for _, _, headers in hub.requests} == {"Bearer hf_right"}


def test_a_token_that_does_not_count_is_named(hub: Hub) -> None:
    hub.add("u/private", quants("m-Q8_0.gguf"), token="hf_right")
    hub.add("u/other", quants("m-Q8_0.gguf"), token="hf_other")
    assert f"{hub.url} refuses the token for u/private (401); renew it" in refused("u/private", token="hf_wrong")
    assert "if it is a private one, set HF_TOKEN" in refused("u/private", token="hf_other")
    hub.faults["m-Q8_0.gguf"] = 403
    assert "refuses the token for u/private (403)" in refused("u/private", token="hf_right")


def test_no_token_is_sent_that_nobody_gave(hub: Hub) -> None:
    hub.add("u/m", quants("m-Q8_0.gguf"))
    resolve_model("u/m")
    assert all("authorization" not in headers for _, _, headers in hub.requests)


def test_without_network_and_cache_one_line_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_listens(monkeypatch)
    assert "cannot get u/m from http://127.0.0.1:9" in refused("u/m")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "nothing is downloaded with HF_HUB_OFFLINE=1" in refused("u/m")


@pytest.mark.parametrize("error", [RuntimeError("xet broke\nat line 3"), OSError("Consistency check failed")])
def test_a_failed_transfer_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    hub.add("u/m", quants("m-Q8_0.gguf"))
    monkeypatch.setattr(HfApi, "hf_hub_download", fail)
    assert f"({str(error).splitlines()[0]}); check the network" in refused("u/m")


def test_a_full_disk_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    hub.add("u/m", quants("m-Q8_0.gguf"))
    monkeypatch.setattr(HfApi, "hf_hub_download", fail)
    assert f"cannot write to {tmp_path / 'cache'}: [Errno 28] No space left" in refused("u/m")


def test_a_cache_that_cannot_be_written_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.add("u/m", quants("m-Q8_0.gguf"))
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    assert f"cannot write to {folder}" in refused("u/m", cache_dir=folder)
    assert "set HF_HOME" in refused("u/m", cache_dir=folder)


# --- names that lead elsewhere --------------------------------------------------------------------------

HOSTILE = ("../../evil-Q8_0.gguf", "/etc/evil-Q8_0.gguf", "a\\..\\evil-Q8_0.gguf", "a/../../evil-Q8_0.gguf")
HOSTILE = (*HOSTILE, "C:evil-Q8_0.gguf", "a//evil-Q8_0.gguf", "evil\n-Q8_0.gguf", "evil-Q8_0.gguf.exe")


def test_a_listing_cannot_lead_out_of_the_cache(hub: Hub, tmp_path: Path) -> None:
    hub.add("u/hostile", quants(*HOSTILE))
    assert "no GGUF model" in refused("u/hostile:Q8_0")
    hub.add("u/hostile", quants(*HOSTILE, "z-good-Q8_0.gguf"))
    assert resolve_model("u/hostile:Q8_0").name == "z-good-Q8_0.gguf"
    assert resolve_model("u/hostile").name == "z-good-Q8_0.gguf"
    with pytest.raises(ValueError, match="matches no GGUF file"):
        MaskProbeLlama.from_pretrained("u/hostile", "*evil*", local_dir=tmp_path / "here")
    assert all(path.endswith("/z-good-Q8_0.gguf") for path in hub.downloads())
    assert list(tmp_path.rglob("*evil*")) == []


@pytest.mark.parametrize("pattern", [*HOSTILE[:4], "", "../*", "/etc/*.gguf", None])
def test_a_pattern_cannot_lead_out_of_the_repository(hub: Hub, pattern: str) -> None:
    hub.add("u/m", quants("m-Q8_0.gguf"))
    with pytest.raises(ValueError, match="relative path or a glob"):
        MaskProbeLlama.from_pretrained("u/m", pattern)
    with pytest.raises(ValueError, match="relative path or a glob"):
        MaskProbeLlama.from_pretrained("u/m", "m-Q8_0.gguf", additional_files=[pattern])
    assert hub.requests == []


# --- loading --------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_repo(hub: Hub, tiny_path: Callable[[str], Path]) -> Hub:
    data = tiny_path("llama").read_bytes()
    hub.add("u/tiny", {"tiny-Q8_0.gguf": data, "sub/tiny-F32.gguf": data, "sub/mmproj.gguf": b"GGUF", "README.md": b""})
    return hub


def test_from_hub_loads_and_generates(tiny_repo: Hub, tiny_path: Callable[[str], Path]) -> None:
    with MaskProbeLlama(tiny_path("llama"), **LOADED) as llm:
        expected = llm.generate("Hello", max_tokens=8, temperature=0.0).tokens
    with MaskProbeLlama.from_hub("u/tiny:F32", **LOADED) as llm:
        assert llm.generate("Hello", max_tokens=8, temperature=0.0).tokens == expected
        assert llm.n_ctx() == 512


def test_from_hub_takes_what_resolve_model_takes(tiny_repo: Hub, tmp_path: Path) -> None:
    with MaskProbeLlama.from_hub("u/tiny", revision="main", cache_dir=tmp_path / "mine", token=False, **LOADED) as llm:
        path = llm.model_path
    assert path.is_relative_to(tmp_path / "mine")
    tiny_repo.requests.clear()
    with MaskProbeLlama.from_hub("u/tiny", local_files_only=True, cache_dir=tmp_path / "mine", **LOADED) as llm:
        assert llm.model_path == path
    assert tiny_repo.requests == []


def test_from_pretrained_takes_the_file_that_a_glob_matches(tiny_repo: Hub) -> None:
    with MaskProbeLlama.from_pretrained("u/tiny", "*Q8_0.gguf", **LOADED) as llm:
        assert llm.model_path.name == "tiny-Q8_0.gguf"
    with MaskProbeLlama.from_pretrained(
        repo_id="u/tiny", filename="sub/tiny*", additional_files=["*mmproj*"], **LOADED
    ) as llm:
        assert (llm.model_path.parent / "mmproj.gguf").read_bytes() == b"GGUF"


def test_from_pretrained_puts_files_into_a_folder(
    tiny_repo: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    with MaskProbeLlama.from_pretrained(
        "u/tiny", "sub/tiny*", local_dir=here, local_dir_use_symlinks=False, **LOADED
    ) as llm:
        assert llm.model_path == here / "sub" / "tiny-F32.gguf"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with MaskProbeLlama.from_pretrained("u/tiny", "sub/tiny*", local_dir=here, **LOADED) as llm:
        assert llm.model_path == here / "sub" / "tiny-F32.gguf"


def test_from_pretrained_refuses_what_is_not_one_file(tiny_repo: Hub) -> None:
    with pytest.raises(ValueError, match=r"several files of u/tiny; choose one of sub/tiny-F32.gguf, tiny-Q8_0.gguf"):
        MaskProbeLlama.from_pretrained("u/tiny", "*tiny*")
    with pytest.raises(ValueError, match=r"matches no GGUF file of u/tiny; it has sub/mmproj\.gguf"):
        MaskProbeLlama.from_pretrained("u/tiny", "README.md")
    with pytest.raises(ValueError, match="matches no GGUF file"):
        MaskProbeLlama.from_pretrained("u/tiny", "tiny-Q8_0.gguf", ["nowhere*"])
    with pytest.raises(ValueError, match="form user/repo"):
        MaskProbeLlama.from_pretrained("../u/tiny", "*")
    with pytest.raises(MaskProbeError, match="u/nothing is no file and no repository"):
        MaskProbeLlama.from_pretrained("u/nothing", "*")
    assert tiny_repo.downloads() == []


# --- the environment ------------------------------------------------------------------------------------


def test_the_environment_variables_of_huggingface_hub_count(hub: Hub, tmp_path: Path) -> None:
    hub.add("u/m", quants("m-Q8_0.gguf"), token="hf_env")
    code = "import sys; from maskprobe.hub import resolve_model; assert 'huggingface_hub' not in sys.modules\n"
    code += "print(resolve_model('u/m'))"
    own = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_env", "HF_HUB_DISABLE_XET": "1"}

    def run(**more: str) -> str:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | own | more
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
        ).stdout

    path = run()
    assert Path(path.strip()).is_relative_to(tmp_path / "home" / "hub")
    hub.requests.clear()
    assert run(HF_HUB_OFFLINE="1") == path
    assert hub.requests == []

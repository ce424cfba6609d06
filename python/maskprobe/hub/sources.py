"""Names of models to files: paths, catalogue names, and repositories of the Hugging Face hub.

Knows the notation, which of a repository's files is meant, and what to say when it cannot be had. Transfers, the
cache, tokens and progress bars are huggingface_hub's, as are its environment variables: HF_HOME, HF_HUB_CACHE,
HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE. It is imported when a name needs it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..errors import HubError, ModelError
from ..splits import split_paths
from . import catalog
from .embedded import embedded_model

if TYPE_CHECKING:
    from huggingface_hub import CachedRevisionInfo

DEFAULT_QUANT = "Q4_K_M"

Folder = str | PathLike[str]

_TIMEOUT_S = 10
_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<quant>[\w.-]+))?(?:@(?P<revision>\S+))?", re.ASCII)
_REPO = re.compile(r"[\w.-]+(?:/[\w.-]+)?", re.ASCII)
_QUANT = re.compile(r"(?<![A-Za-z0-9])((UD-)?(I?Q|TQ)\d\w*|BF16|F16|F32|MXFP4\w*)(?=[./-])", re.IGNORECASE)
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
# Files that accompany a model: projectors, calibration data, draft heads.
_COMPANION = re.compile(r"mmproj|imatrix|^(mtp|eagle3|dflash)-", re.IGNORECASE)


def resolve_model(
    name: Folder | None,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    cache_dir: Folder | None = None,
) -> Path:
    """The file that a name means; what is not there yet is downloaded into the hub's cache.

    In this order: None is the embedded model; a file that exists, and everything that looks like a path, is itself;
    ``NAME[:QUANT][@REVISION]`` is a model of the catalogue; ``USER/REPO[:QUANT][@REVISION]`` is a repository of the
    hub. QUANT is Q4_K_M if the repository has it, else its first GGUF file; upper and lower case are the same. Of a
    split model all files are had, and the first is returned.

    The hub is asked for changes each time. If it cannot be, the cache's files are taken, with a warning.

    Args:
        name: as above; a path object is always a path.
        revision: a branch, tag or commit, in place of ``@REVISION``.
        local_files_only: look into the cache alone, as HF_HUB_OFFLINE=1 does.
        token: for private and gated repositories; None = HF_TOKEN or the login of ``hf auth login``.
        cache_dir: the cache's folder; None = huggingface_hub's.

    Raises:
        ModelError: the catalogue has no such name.
        HubError: the repository, or the file in it, cannot be had.
        ValueError: the name is malformed.
    """
    if name is None:
        return embedded_model()
    if not isinstance(name, str) or _is_path(name):
        return Path(name)
    reference = parse(name, revision)
    if reference is None:
        return embedded_model()
    source = _Source(reference.repo, reference.revision, token, local_files_only, cache_dir)
    return source.fetch(lambda files: [_choose(files, reference.quant, source.description())])


def download_matching(
    repo_id: str,
    filename: str,
    additional_files: Sequence[str] | None = None,
    *,
    local_dir: Folder | None = None,
    cache_dir: Folder | None = None,
) -> Path:
    """The GGUF file of a repository that matches a name or glob; it and the additional ones are downloaded.

    Raises:
        HubError: the repository, or a file in it, cannot be had.
        ValueError: a pattern matches no file or several, or leads out of the repository.
    """
    if not isinstance(repo_id, str) or not _REPO.fullmatch(repo_id):
        raise ValueError(f"repo_id must be of the form user/repo, got {repo_id!r}")
    patterns = [filename, *(additional_files or ())]
    for pattern in patterns:
        if not isinstance(pattern, str) or not _is_plain(pattern):
            raise ValueError(f"a file of a repository is named by a relative path or a glob, got {pattern!r}")
    source = _Source(repo_id, None, None, False, cache_dir, local_dir)
    return source.fetch(lambda files: [_only_match(files, pattern, source.description()) for pattern in patterns])


# --- names ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """A model in a repository. None stands for the default."""

    repo: str
    quant: str | None = None
    revision: str | None = None


def parse(name: str, revision: str | None = None) -> Reference | None:
    """What a name that is no path refers to; None = the embedded model.

    Raises:
        ModelError: the catalogue has no such name.
        ValueError: the name is malformed.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} names no model; give a .gguf file, a catalogue name or user/repo:QUANT@revision")
    repo, quant, at = match["name"], match["quant"], match["revision"]
    if at is not None and revision is not None and at != revision:
        raise ValueError(f"{name!r} names another revision than {revision!r}; give one of them")
    revision = at if revision is None else revision
    if revision is not None and not _is_plain(revision):
        raise ValueError(f"{revision!r} is no revision; give a branch, a tag or a commit")
    if "/" in repo:
        return Reference(repo, quant, revision)
    entry = catalog.find(repo)
    if entry is None:
        close = catalog.close_names(repo)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise ModelError(
            f"{repo!r} is no file and not in the catalogue; {hint}`maskprobe models` lists its names, "
            "and a repository is named user/repo"
        )
    if entry.repo is None:
        if quant is not None or revision is not None:
            raise ValueError(f"{name!r}: the embedded model is one file; leave quant and revision out")
        return None
    return Reference(entry.repo, quant or entry.quant, revision)


def _is_path(name: str) -> bool:
    return name.lower().endswith(".gguf") or name.startswith((".", "/", "~")) or "\\" in name or Path(name).is_file()


# --- which of a repository's files ----------------------------------------------------------------------


def quant_of(file: str) -> str | None:
    """The quantization that a file's name tells."""
    found = [match[1] for match in _QUANT.finditer(file)]
    return found[-1].upper() if found else None


def _is_plain(path: str) -> bool:
    """Whether a path stays below the folder it is relative to, on every system."""
    parts = path.split("/")
    return path.isprintable() and not {"\\", ":"} & {*path} and not {"", ".", ".."} & {*parts}


def _gguf_files(names: Iterable[str]) -> list[str]:
    """The names that are taken from a listing, whoever wrote it."""
    return sorted(name for name in names if name.lower().endswith(".gguf") and _is_plain(name))


def _models(files: Iterable[str]) -> list[str]:
    """The files that a model is loaded from: of a split one, the first."""
    return [file for file in files if not _LATER_PART.search(file) and not _COMPANION.search(PurePosixPath(file).name)]


def _parts(file: str) -> list[str]:
    return [part.as_posix() for part in split_paths(Path(file))]


def _choose(files: Sequence[str], quant: str | None, where: str) -> str:
    """The model's file of a quantization, which stands in its name or its folder's."""
    models = _models(files)
    tag = re.compile(rf"(?<![A-Za-z0-9]){re.escape(quant or DEFAULT_QUANT)}(?=[./-])", re.IGNORECASE)
    matching = [file for file in models if tag.search(file)]
    if matching:
        return min(matching, key=len)  # Q4_K_M rather than UD-Q4_K_M
    if not models:
        raise HubError(f"{where} has no GGUF model; look for a repository whose name ends in -GGUF")
    if quant is None:
        return models[0]
    available = dict.fromkeys(quant_of(file) or file for file in models)
    raise HubError(f"{where} has no {quant}; it has {', '.join(available)}")


def _only_match(files: Sequence[str], pattern: str, where: str) -> str:
    matching = [file for file in files if fnmatchcase(file, pattern)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ValueError(f"{pattern!r} matches several files of {where}; choose one of {', '.join(matching)}")
    raise ValueError(f"{pattern!r} matches no GGUF file of {where}; it has {', '.join(files) or 'none'}")


# --- the hub and its cache ------------------------------------------------------------------------------


@dataclass
class _Source:
    """One repository at one revision: on the hub, or what the cache has of it."""

    repo: str
    revision: str | None
    token: str | bool | None
    local_files_only: bool
    cache_dir: Folder | None
    local_dir: Folder | None = None
    snapshot: Path | None = None  # where the files are, if the hub is not asked

    def description(self) -> str:
        """The repository, for messages."""
        at = f"{self.repo}@{self.revision}" if self.revision else self.repo
        return f"{at} in the cache" if self.snapshot else at

    def fetch(self, choose: Callable[[list[str]], list[str]]) -> Path:
        """The first of the chosen files; all of them are there then, with all their parts."""
        files = self._files()
        wanted = list(dict.fromkeys(part for file in choose(files) for part in _parts(file)))
        missing = [part for part in wanted if part not in files]
        if missing:
            raise HubError(f"{self.description()} lacks {missing[0]}, a part of the model; choose another quantization")
        return self.snapshot / wanted[0] if self.snapshot else self._download(wanted)

    def _files(self) -> list[str]:
        from huggingface_hub import HfApi, constants

        if self.local_files_only or constants.HF_HUB_OFFLINE:
            files = self._cached_files()
            if files:
                return files
            raise HubError(
                f"{self.description()} is not in the cache ({_cache(self.cache_dir)}), and nothing is downloaded "
                "with HF_HUB_OFFLINE=1 or local_files_only; download it without them, once"
            )
        try:
            # One request, and no waiting for a hub that is out of reach, as list_repo_files would.
            info = HfApi(token=self.token).model_info(self.repo, revision=self.revision, timeout=_TIMEOUT_S)
            return _gguf_files(file.rfilename for file in info.siblings or ())
        except _failures() as error:
            problem = self._explained(error)
            files = self._cached_files()
            if not files:
                raise problem from error
            warnings.warn(f"{problem}; the cache's files are used", RuntimeWarning, stacklevel=4)
            return files

    def _cached_files(self) -> list[str]:
        """The files that are there already; from now on they are what the repository has."""
        for snapshot in self._snapshots():
            files = _gguf_files(file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*") if file.is_file())
            if files:
                self.snapshot = snapshot
                return files
        return []

    def _snapshots(self) -> Iterator[Path]:
        if self.local_dir is not None:
            yield Path(self.local_dir)
        for repo, revision in _cached_revisions(self.cache_dir):
            if repo == self.repo and (self.revision or "main") in {*revision.refs, revision.commit_hash}:
                yield revision.snapshot_path

    def _download(self, files: Sequence[str]) -> Path:
        from huggingface_hub import HfApi

        api = HfApi(token=self.token)
        folders = {"cache_dir": self.cache_dir, "local_dir": self.local_dir}
        revision, paths = self.revision, []
        for file in files:
            try:
                paths.append(Path(api.hf_hub_download(self.repo, file, revision=revision, **_as_text(folders))))
            except _failures() as error:
                raise self._explained(error) from error
            if self.local_dir is None:
                revision = paths[0].parents[files[0].count("/")].name  # the commit: all parts come from one
        return paths[0]

    def _explained(self, error: BaseException) -> HubError:
        """What went wrong and what to do, in one line."""
        from huggingface_hub import constants, errors

        hub, page = constants.ENDPOINT, f"{constants.ENDPOINT}/{self.repo}"
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
            return self._explained(error.__cause__)
        if isinstance(error, errors.GatedRepoError):
            text = f"{self.repo} is gated; accept its terms at {page}, then run `hf auth login` or set HF_TOKEN"
        elif isinstance(error, errors.RepositoryNotFoundError):
            text = f"{self.repo} is no file and no repository of {hub}; if it is a private one, set HF_TOKEN"
        elif isinstance(error, errors.RevisionNotFoundError):
            text = f"{self.repo} has no revision {self.revision!r}; leave it out, or see {page}/tree/main"
        elif isinstance(error, errors.HFValidationError):
            text = f"{self.repo!r} cannot be a repository's name; the form is user/repo"
        elif status in (401, 403):
            text = f"{hub} refuses the token for {self.repo} ({status}); renew it with `hf auth login` or HF_TOKEN"
        elif status is not None:
            text = f"{hub} answers {status} for {self.repo}; try again later"
        elif _is_of_files(error):
            folder = self.local_dir if self.local_dir is not None else _cache(self.cache_dir)
            text = f"cannot write to {folder}: {error}; make room or set HF_HOME to a folder that can be written"
        else:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            text = f"cannot get {self.repo} from {hub} ({reason}); check the network and HF_ENDPOINT, then try again"
        return HubError(text)


def _failures() -> tuple[type[BaseException], ...]:
    """What huggingface_hub raises when the hub, the network or the disk fails.

    The base of its HTTP errors is that of its HTTP library, so lost connections are among them. Answers that are
    no JSON and names that it does not take are ValueErrors; Xet, its other way to transfer, has RuntimeErrors.
    """
    from huggingface_hub import errors

    return (*errors.HfHubHTTPError.__bases__, OSError, ValueError, RuntimeError)


def _is_of_files(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)


def _as_text(folders: dict[str, Folder | None]) -> dict[str, Any]:
    return {key: str(Path(folder)) for key, folder in folders.items() if folder is not None}


def _cache(cache_dir: Folder | None) -> Path:
    from huggingface_hub import constants

    return Path(cache_dir if cache_dir is not None else constants.HF_HUB_CACHE)


def _cached_revisions(cache_dir: Folder | None) -> Iterator[tuple[str, CachedRevisionInfo]]:
    """Repositories of models in the cache, and their revisions."""
    from huggingface_hub import scan_cache_dir

    folder = _cache(cache_dir)
    for repo in scan_cache_dir(folder).repos if folder.is_dir() else ():
        if repo.repo_type == "model":
            for revision in repo.revisions:
                yield repo.repo_id, revision


@dataclass(frozen=True)
class CachedModel:
    """A model in the hub's cache, with all its parts."""

    repo: str
    revision: str
    quant: str | None
    bytes: int
    path: Path

    @property
    def name(self) -> str:
        """The name that resolves to it."""
        at = "" if self.revision == "main" else f"@{self.revision}"
        return f"{self.repo}:{self.quant}{at}" if self.quant else f"{self.repo}{at}"


def cached_models(cache_dir: Folder | None = None) -> list[CachedModel]:
    """The complete models in the hub's cache, by name."""
    found = []
    for repo, revision in _cached_revisions(cache_dir):
        sizes = {
            file.file_path.relative_to(revision.snapshot_path).as_posix(): file.size_on_disk for file in revision.files
        }
        at = "main" if "main" in revision.refs else min(revision.refs, default=revision.commit_hash)
        for file in _models(_gguf_files(sizes)):
            if sizes.keys() >= {*_parts(file)}:
                size = sum(sizes[part] for part in _parts(file))
                found.append(CachedModel(repo, at, quant_of(file), size, revision.snapshot_path / file))
    return sorted(found, key=lambda model: (model.name, model.path))

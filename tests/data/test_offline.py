import dataclasses
import zlib

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.data import offline, offline_file
from metarl_jax.errors import ConfigurationError
from tests.helpers import cached, same, spec

CHECKPOINTS = (100, 200, 300)
HORIZON = 4
METADATA = offline.Metadata(
    env="toy",
    env_options=("horizon=4",),
    engine="none",
    variant="fast",
    horizon=HORIZON,
    subtasks=("near", "far"),
    preset="small",
    seed=0,
    checkpoints=CHECKPOINTS,
    version="0",
    commit=None,
)
SPEC = spec("toy", obs_size=2, action_size=1, task_size=1, horizon=HORIZON, families=("go",), subtasks=("near", "far"))
LENGTHS = [[4, 2, 4, 4, 3, 4], [4, 4, 4, 4, 4, 4], [1, 1, 2, 1, 4, 2]]
"""Of each task's episodes, two per checkpoint."""
LEVELS = np.array([[0.0, 5.0, 9.0], [9.0, 0.0, 4.0], [1.0, 2.0, 9.0]])
"""Reward per step of each task and checkpoint: the second task's first is its best."""


@cached
def data() -> offline.OfflineData:
    """Three tasks; the observation counts the stored transitions of a task, and padding would be 99."""
    rng = np.random.default_rng(0)
    num, length = len(LENGTHS), max(map(sum, LENGTHS)) + 2
    reward, checkpoint = np.full((num, length), 99.0, np.float32), np.zeros((num, length), np.int32)
    last, terminated = np.zeros((2, num, length), bool)
    for n, lengths in enumerate(LENGTHS):
        start = 0
        for i, steps in enumerate(lengths):
            reward[n, start : start + steps] = LEVELS[n, i // 2]
            checkpoint[n, start : start + steps] = CHECKPOINTS[i // 2]
            start += steps
            last[n, start - 1], terminated[n, start - 1] = True, steps < HORIZON
    index = np.broadcast_to(np.arange(length, dtype=np.float32), (num, length))
    return offline.OfflineData(
        obs=np.stack([index, rng.normal(size=index.shape)], -1).astype(np.float32),
        action=rng.uniform(-1, 1, (num, length, 1)).astype(np.float32),
        reward=reward,
        next_obs=np.stack([index + 1, rng.normal(size=index.shape)], -1).astype(np.float32),
        terminated=terminated,
        last=last,
        count=np.array([sum(lengths) for lengths in LENGTHS], np.int32),
        checkpoint=checkpoint,
        task=offline.Tasks(np.zeros(3, np.int32), np.array([[1.0], [2.0], [3.0]], np.float32), np.array([0, 0, 1])),
        split=np.array([0, 0, 2], np.int32),
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data.h5"
    offline_file.save(path, data(), METADATA)
    return path


def fails(path, message: str, spec=None) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        offline_file.load(path, spec)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_round_trip(file):
    loaded, metadata = offline_file.load(file, SPEC)
    assert same(loaded, data()._replace(task=data().task._replace(label=data().task.label.astype(np.int32))))
    assert metadata == METADATA
    assert [p.name for p in file.parent.iterdir()] == ["data.h5"]


def test_sampling_is_uniform_over_what_is_stored():
    draw = jax.jit(lambda key, task: offline.sample(jax.tree.map(jnp.asarray, data()), key, task, 4_000))
    task = jnp.array([2, 0])
    batch = draw(jax.random.key(0), task)
    assert batch.obs.shape == (2, 4_000, 2) and batch.reward.shape == (2, 4_000)
    assert not (np.asarray(batch.reward) == 99.0).any()
    for row, n in enumerate((2, 0)):
        index = np.asarray(batch.obs[row, :, 0]).astype(int)
        frequency = np.bincount(index, minlength=data().count[n]) / 4_000
        expected = 1 / data().count[n]
        assert len(frequency) == data().count[n]
        np.testing.assert_allclose(frequency, expected, atol=5 * np.sqrt(expected / 4_000))
        for name in offline.OfflineBatch._fields:  # one transition, not a mixture of several
            np.testing.assert_array_equal(getattr(batch, name)[row], getattr(data(), name)[n, index])
    other = draw(jax.random.key(1), task)
    assert not same(other, batch) and same(draw(jax.random.key(0), task), batch)


def test_episodes():
    table = offline.episodes(data())
    np.testing.assert_array_equal(table.length, np.concatenate(LENGTHS))
    np.testing.assert_array_equal(table.start[:6], [0, 4, 6, 10, 14, 17])
    np.testing.assert_array_equal(table.checkpoint, np.tile(np.repeat(CHECKPOINTS, 2), 3))
    np.testing.assert_allclose(table.returns, table.length * np.repeat(LEVELS.ravel(), 2))
    means = table.returns.reshape(3, 3, 2).mean(-1)
    np.testing.assert_allclose(offline.behaviour_returns(data(), METADATA), means)
    by_task = table.returns.reshape(3, 6)
    np.testing.assert_allclose(offline.return_range(data()), np.stack([by_task.min(1), by_task.max(1)], -1))


def test_a_checkpoint_without_episodes_is_not_zero():
    part = offline.select(data(), data().checkpoint != 200)
    returns = offline.behaviour_returns(part, METADATA)
    assert np.isnan(returns[:, 1]).all() and np.isfinite(returns[:, [0, 2]]).all()


@pytest.mark.parametrize(("name", "chosen"), [("expert", [300, 100, 300]), ("medium", [200, 300, 200])])
def test_quality_picks_a_checkpoint_per_task(name, chosen, file):
    part, metadata = offline.quality(data(), METADATA, name)
    table, everything = offline.episodes(part), offline.episodes(data())
    np.testing.assert_array_equal(table.checkpoint, np.repeat(chosen, 2))
    kept = everything.checkpoint == np.array(chosen)[everything.task]
    for name_ in ("task", "length", "returns"):
        np.testing.assert_array_equal(getattr(table, name_), getattr(everything, name_)[kept])
    assert metadata.quality == name and part.reward.shape[1] == part.count.max()
    assert not (part.reward == 99.0).any()
    offline_file.save(file, part, metadata)
    assert same(offline_file.load(file)[0].count, part.count)


def test_noise_is_the_sensors(file):
    noisy, metadata = offline.quality(data(), METADATA, "noisy", sigma=0.5)
    assert metadata.quality == "noisy(0.5)"
    assert same(offline.quality(data(), METADATA, "mixed")[0], data())
    assert same(offline.quality(data(), METADATA, "noisy", sigma=0.0)[0].reward, data().reward)
    stored = np.arange(data().reward.shape[1]) < data().count[:, None]
    shift = noisy.obs - data().obs, noisy.next_obs - data().next_obs
    inner, ended = (stored[:, :-1] & (data().last[:, :-1] == flag) for flag in (False, True))
    np.testing.assert_allclose(shift[1][:, :-1][inner], shift[0][:, 1:][inner], atol=1e-5)
    assert not np.isclose(shift[1][:, :-1][ended], shift[0][:, 1:][ended]).any()
    np.testing.assert_allclose(shift[0][stored].std(0), 0.5 * data().obs[stored].std(0), rtol=0.3)
    assert not shift[0][~stored].any()
    for name in ("action", "terminated", "last", "count"):
        assert same(getattr(noisy, name), getattr(data(), name))


def test_quality_of_what_cannot_be(file):
    with pytest.raises(ConfigurationError, match="unknown quality 'best': choose expert, medium, mixed, noisy"):
        offline.quality(data(), METADATA, "best")
    with pytest.raises(ConfigurationError, match="sigma must be >= 0, got nan"):
        offline.quality(data(), METADATA, "noisy", sigma=np.nan)
    with pytest.raises(ConfigurationError, match="quality expert needs data of 2 checkpoints, this has 1"):
        offline.quality(data(), dataclasses.replace(METADATA, checkpoints=(100,)), "expert")
    with pytest.raises(ConfigurationError, match="quality medium needs data of 3 checkpoints, this has 2"):
        offline.quality(data(), dataclasses.replace(METADATA, checkpoints=(100, 200)), "medium")


def test_of_two_checkpoints_as_near_to_the_middle_the_earlier_is_medium():
    """Also where rounding takes the later one for nearer: (0.1 + 0.3) / 2 is above 0.2."""
    found = data()
    levels = np.array([0.1, 0.3, 0.1])
    reward = levels[np.searchsorted(CHECKPOINTS, found.checkpoint).clip(max=2)].astype(np.float32)
    part, _ = offline.quality(found._replace(reward=reward / HORIZON), METADATA, "medium")
    ended = offline.episodes(part)
    assert set(ended.checkpoint[ended.task == 1]) == {CHECKPOINTS[0]}  # its episodes are of one length


def change(path, name: str, edit) -> None:
    """Replace a field of a file by `edit` of it; None: remove it."""
    with h5py.File(path, "a") as stored:
        values = stored[name][()]
        del stored[name]
        if (new := edit(values)) is not None:
            stored[name] = new
            stored[name].attrs["crc32"] = np.array([zlib.crc32(np.ascontiguousarray(row)) for row in new], np.uint32)


def with_(index, value):
    def edit(x):
        x[index] = value
        return x

    return edit


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("reward", lambda x: None, "field reward is missing"),
        ("task/spec", lambda x: None, "field task/spec is missing"),
        ("obs", lambda x: x[:2], r"field obs is float32 \[2, 26, 2\], not float32 \[N=3, M=26, O\]"),
        ("next_obs", lambda x: x[..., :1], r"field next_obs .* not float32 \[N=3, M=26, O=2\]"),
        ("action", lambda x: x[..., 0], r"field action is float32 \[3, 26\], not float32 \[N=3, M=26, A\]"),
        ("reward", lambda x: x.astype(np.float64), r"field reward is float64"),
        ("reward", with_((1, 3), np.nan), "field reward of task 1 is not finite"),
        ("next_obs", with_((2, 0, 1), np.inf), "field next_obs of task 2 is not finite"),
        ("task/spec", with_((0, 0), np.nan), "field task/spec of task 0 is not finite"),
        ("action", with_((0, 0, 0), 1.5), r"field action of task 0 is not in \[-1, 1\]"),
        ("count", with_(1, 0), r"field count of task 1 is 0, not in \[1, 26\]"),
        ("count", with_(1, 27), r"field count of task 1 is 27, not in \[1, 26\]"),
        ("count", with_(1, 22), "field last of task 1 does not end"),
        ("split", with_(2, 3), r"field split of task 2 is 3, not in \[0, 2\]"),
        ("terminated", with_((1, 0), True), "field terminated of task 1 goes on after"),
        ("behaviour_returns", lambda x: x[:, :2], r"field behaviour_returns is .* \[3, 2\], not float32 \[N=3, C=3\]"),
        ("behaviour_returns", with_((1, 0), 30.0), "field behaviour_returns of task 1 is not what its episodes return"),
        ("behaviour_returns", with_((2, 1), np.nan), "field behaviour_returns of task 2 is not what"),
        ("checkpoint", with_((1, 0), 7), "field checkpoint of task 1 is not in metadata"),
        ("checkpoint", with_((1, 1), 300), "field checkpoint of task 1 changes within an episode"),
        ("last", with_((0, 3), False), "field last of task 0 has an episode of 6 steps, more than the horizon"),
    ],
)
def test_a_wrong_field_is_named(file, name, edit, message):
    change(file, name, edit)
    fails(file, message)


def test_padding_is_not_looked_at(file):
    change(file, "reward", with_((2, 25), np.nan))
    assert np.isnan(offline_file.load(file)[0].reward[2, 25])


def test_damaged_files(file, tmp_path):
    """Cut, flipped and partly copied, where the rest is zeros, of which HDF5's own checksum is zero."""
    fails(tmp_path / "nothing.h5", "there is no such file")
    whole = file.read_bytes()
    with h5py.File(file) as stored:
        fields = {name: stored[name].id for name in (*offline.PER_TRANSITION, "count", "split", "task/spec")}
        blocks = {(name, i): x.get_chunk_info(i) for name, x in fields.items() for i in range(x.get_num_chunks())}
    flip = blocks["reward", 1].byte_offset
    damages = [
        (b"no HDF5", "cannot be read"),
        (whole[:flip] + bytes([whole[flip] ^ 1]) + whole[flip + 1 :], "field reward of task 1 is damaged: cannot"),
        (whole.replace(b'"seed": 0', b'"seed": 1'), "cannot be read"),
        *((whole[: len(whole) * part // 8], "cannot be read: ") for part in range(8)),
        *((whole[:start].ljust(len(whole), b"\0"), "cannot be read: ") for start in range(0, flip, 100)),
    ]
    for (name, i), block in blocks.items():
        start, end = block.byte_offset, block.byte_offset + block.size
        task = i if name in offline.PER_TRANSITION else r"\d"
        if any(whole[start:end]):
            damaged = f"field {name} of task {task} is damaged: its checksum does not match"
            damages.append((whole[:start] + bytes(end - start) + whole[end:], damaged))
    for content, message in damages:
        assert content != whole
        file.write_bytes(content)
        fails(file, message)


def test_attributes(file):
    for name, value, message in (
        ("metadata", b"{}", "field metadata is damaged: its checksum does not match"),
        ("format", b"metarl_jax offline data, version 0", "is not a data set of this library"),
    ):
        with h5py.File(file, "a") as stored:
            stored.attrs[name] = np.bytes_(value)
        fails(file, message)


def test_files_of_format_1(file):
    """They have strings of any length, and none of the checksums of rows."""
    with h5py.File(file, "a") as stored:
        stored.attrs["format"], stored.attrs["metadata"] = offline_file.FORMATS[0], stored.attrs["metadata"].decode()
        for name in offline_file._LAYOUT:
            del stored[name].attrs["crc32"]
    assert same(offline_file.load(file)[0].obs, data().obs)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"name": "other"}, "is of benchmark toy, not other"),
        ({"obs_size": 3}, "is of observation size 2, not 3"),
        ({"action_size": 3}, "is of action size 1, not 3"),
        ({"task_size": 3}, "is of task size 1, not 3"),
        ({"horizon": 3}, "is of horizon 4, not 3"),
        ({"subtasks": ("near",)}, "is of sub-tasks near, far, not near"),
        ({"families": ()}, "field task/family of task 0 is none of"),
    ],
)
def test_another_benchmark_is_refused(file, sizes, message):
    fails(file, message, SPEC._replace(**sizes))


def test_metadata_of_another_version(file):
    with h5py.File(file, "a") as stored:
        text = stored.attrs["metadata"].replace(b'"seed"', b'"sead"')
        stored.attrs["metadata"], stored.attrs["metadata_crc"] = np.bytes_(text), zlib.crc32(text)
    fails(file, "another version: it differs in 'sead'")

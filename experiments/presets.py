"""Settings of the algorithms that collect their data: the papers' tables, and the fastest found here."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from envs import EnvSpec
from metarl_jax.agents import cemrl as cemrl_agent
from metarl_jax.agents import control, moss
from metarl_jax.agents import timrl as timrl_agent
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import context_vae, decoding, gmm_vae, sac
from metarl_jax.learners.recognizer import Config as RecognizerConfig
from metarl_jax.training import trainer

PRESETS = ("fast", "paper")

MIXTURES = {
    "cheetah_multitask": 4,
    "cheetah_eight": 5,
    "ant_multitask": 3,
    "cheetah_2task": 2,
    "cheetah_3task": 3,
    "cheetah_dir_vel_to_goal": 3,
}
"""Base tasks of the whole benchmarks that have several, of which `only` may leave fewer: components K of `paper`."""

PAPER_SCHEDULE = {"cheetah_multitask": (3001, 70), "ant_multitask": (2001, 90)}
"""(epochs, tasks per epoch) where they differ from cheetah_vel's."""


def _base_tasks(spec: EnvSpec) -> int:
    return MIXTURES.get(spec.name, len(spec.families))


def paper(spec: EnvSpec) -> tuple[moss.Config, trainer.Config, int]:
    """The paper's table: agent, data, epochs.

    What it leaves open is as in the codes that MoSS grew out of, CEMRL's and TIGR's: critics value the next state under
    the belief before the step, and the transitions of a batch come from as many episodes. Here they are drawn from 256
    episodes for 64 updates. Under the belief after the step, what the first steps reveal was 93 % of the critics' loss
    on cheetah_vel. `use_trajectory_sample_sac` is read as whole trajectories, of which no step is drawn less than
    another, and `use_normalized_env` as standardised observations: without them MoSS idled nearly twice as long there.
    Nothing tells the VAE's weights: KL's is that of `fast`, the contrastive loss's a tenth of the reward's.
    """
    k = _base_tasks(spec)
    epochs, tasks_per_epoch = PAPER_SCHEDULE.get(spec.name, (501, 30))
    window = min(64, spec.horizon)
    trajectory = k == 1
    agent = moss.Config(
        vae=gmm_vae.Config(
            num_components=k,
            latent_size=5 if k == 1 else 8,
            kl_z_weight=0.05 if trajectory and spec.stationary else 0.005,
            contrastive_weight=0.1 if spec.stationary else 0.0,
        ),
        window=spec.horizon if trajectory else window,
        vae_window=window,
        use_trajectory_sample_sac=trajectory,
        pool_windows=256,
        updates_per_pool=1 << window.bit_length() - 1 if trajectory else 1,  # a power of two that is at most `window`
        hold_belief=True,
        standardize_obs=True,
    )
    return agent, trainer.Config(num_envs=tasks_per_epoch, replay_rows=20_000), epochs


GOALS = ("point_robot", "sparse_point_robot", "ant_goal", "ant_goal_ood", "ant_goal_grid")
"""Benchmarks whose reward is a distance: a short path does not tell it elsewhere, so beliefs decode other
episodes of the same task."""

RELATIVE_ERRORS = ("cheetah_multitask", "cheetah_eight")
"""Benchmarks whose rewards are errors relative to what is asked for: resting pays -1 in all of their tasks."""

FLOORS = {"stand": -1.0}
"""Base tasks of theirs on which falling over is to cost no more than resting, so that bodies dare to sit up."""

OUT_OF_RANGE = ("cheetah_vel_ood",)
"""Benchmarks whose held-out tasks lie outside the training range, and whose rewards can be imagined there: resting pays
nothing that SAC or the VAE would have to know."""

HELD_FOR = dict.fromkeys(("cheetah_vel", "cheetah_vel_ood"), (200_000, 8_000)) | dict.fromkeys(
    RELATIVE_ERRORS, (450_000, 60_000)
)
"""Updates of SAC and of the VAE for which `fast` holds their step sizes, where they fall after that: what is left to
gain late is lost in noise there."""

STEPS_PER_EPOCH = 5_000
"""Env steps that `fast` collects per epoch; twice as many of a body with many joints."""

MANY_JOINTS = ("ant", "humanoid")
"""Bodies, which their benchmarks' names begin with."""

FIXED_TEMPERATURE = ("cheetah_vel", "cheetah_vel_ood", "cheetah_vel_nonstat", "cheetah_vel_grid", *MIXTURES)
"""Benchmarks whose rewards have a common scale of about 1 per step: a fixed entropy temperature. On the
multi-task ones a learnt temperature fell to 0.002, the policies saturated and returned less than idling. Elsewhere
(directions: the faster, the more reward) the temperature is learnt."""


def fast(spec: EnvSpec) -> tuple[moss.Config, trainer.Config]:
    """Most return per second of wall-clock found here: small networks, large learning rates, relabelled pools.

    SAC's beliefs are unrolled over whole episodes, the VAE's over 64 steps: an unroll takes as long as its window, and
    a task shows in its first steps. What is counted in episodes scales with their length. The contrastive loss is off:
    an earlier version gained nothing from it. Base tasks that share a network need larger batches (64 samples of 70
    tasks are less than one each), and goals 25 m away a longer view; they share the dynamics too, so that the reward's
    error counts most; and twice the VAE updates. There is one Gaussian even then: four returned less in the same time.
    Critics are told the task: they would have to learn to read a belief that is still forming. Where resting pays -1
    per step whatever the task, falling over pays little less, and no less where standing is asked for, so that bodies
    dare to move; critics are told what actions cost, which is lost among larger values, and count by their mean; some
    episodes have a head start, because what lies between leaning and sitting up is a fall. Where tasks change, a small
    KL weight lets beliefs change with them, longer windows hold more changes, and beliefs decode any transition of the
    task's segment. Where a step changes little of what is paid, encoders are told that change, and rewards as if
    actions were free. Ants and humanoids differ: see `_of_many_joints`.
    """
    env, horizon = spec.name, spec.horizon
    several = _base_tasks(spec) > 1
    small_steps = several or env in GOALS
    many_joints = env.startswith(MANY_JOINTS)
    steps_per_epoch = (2 if many_joints else 1) * STEPS_PER_EPOCH
    changes = not (spec.stationary or several)
    vae_window = min(128 if changes else 64, horizon)
    vae_steps = 2_048 if changes else 1_024
    decode = "trajectory" if not spec.stationary else "task" if several or env in GOALS else "next"
    sac_updates = 800 if several and not many_joints else 1_600
    floor = tuple(FLOORS.get(family, -1.5) for family in spec.families) if env in RELATIVE_ERRORS else ()
    sac_held_for, vae_held_for = HELD_FOR.get(env, (None, None))
    imagines = env in OUT_OF_RANGE and spec.stationary
    agent = moss.Config(
        vae=gmm_vae.Config(
            gross_reward=small_steps,
            reward_change=small_steps,
            num_components=1,
            latent_size=8 if several else 5,
            hidden_size=64,
            state_decoder_sizes=(64,),
            reward_decoder_sizes=(64, 64),
            decode=decode,
            learning_rate=2e-3,
            learning_rate_held_for=vae_held_for,
            max_grad_norm=1.0 if several else None,
            batch_size=vae_steps // vae_window,
            kl_z_weight=0.005 if several or changes else 0.05,
            contrastive_weight=0.0,
            state_weight=0.2 if several else 1.0,
            reward_weight=5.0 if several else 1.0,
        ),
        sac=sac.Config(
            hidden_sizes=(128, 128),
            learning_rate=1e-3,
            learning_rate_held_for=sac_held_for,
            batch_size=256 if several else 64,
            discount=0.985 if several else 0.97,
            target_rate=0.02,
            alpha=0.05,
            automatic_entropy_tuning=not several and env not in FIXED_TEMPERATURE,
            target_entropy=-1.0,
            pessimism=0.0 if env in RELATIVE_ERRORS else 1.0,
            max_grad_norm=None,
            policy_every=2,
            average_rate=0.001,
            action_cost=spec.action_cost if env in RELATIVE_ERRORS else 0.0,
        ),
        standardize_belief=True,
        standardize_obs=True,
        privileged_critics=True,
        reward_floor=floor,
        scale_rate=0.02,
        window=horizon,
        vae_window=vae_window,
        vae_updates=(8_192 if several or changes else 4_096) // vae_window,
        sac_updates=sac_updates,
        pretrain_updates=800,
        pool_windows=max(1, 102_400 // horizon),
        updates_per_pool=sac_updates // 2,  # one pool per epoch: `policy_every` is 2
        reward_model_updates=100 if imagines else 0,
    )
    data = trainer.Config(
        num_envs=max(10, steps_per_epoch // horizon),
        imagined_episodes=0.6 if imagines else 0.0,
        head_starts=0.25 if env in RELATIVE_ERRORS else 0.0,
        replay_rows=2_000_000 // horizon,
        initial_episodes=max(20, 20_000 // horizon),
    )
    return _of_many_joints(agent, several, small_steps, spec.action_cost) if many_joints else agent, data


def _of_many_joints(agent: moss.Config, several: bool, small_steps: bool, action_cost: float) -> moss.Config:
    """What a body needs instead that is hard to move, as an ant, or to hold upright, as a humanoid.

    Its networks have no embedding that all of its joints must pass through, and are larger where it has one family;
    updates are small and many, and actions vary more. Where a step changes little of what is paid, critics, decoder and
    encoder are made to look at that change, and critics are told what actions cost. On base tasks, whose errors are
    squared, what being thrown about costs is bounded; what to do is learnt later there than what is asked for, so that
    few updates of a small VAE are enough.
    """
    sac_config = dataclasses.replace(
        agent.sac,
        hidden_sizes=(128, 128) if several else (256, 256),
        obs_embedding=0,
        belief_embedding=0,
        layer_norm=True,
        learning_rate=5e-4,
        batch_size=64,
        action_cost=action_cost if small_steps else 0.0,
        discount=agent.sac.discount if several else 0.98,
        alpha=0.02 if several else 0.05,
        target_entropy=-0.3,
    )
    vae = dataclasses.replace(
        agent.vae,
        hidden_size=128 if small_steps and not several else agent.vae.hidden_size,
        progress_weight=agent.vae.reward_weight if small_steps else 0.0,
    )
    return dataclasses.replace(
        agent,
        sac=sac_config,
        vae=vae,
        vae_updates=40 if several else agent.vae_updates,
        resting_potential=small_steps,
        reward_floor=(-2.0,) if several else (),
    )


def common(preset: str, spec: EnvSpec) -> tuple[moss.Config, trainer.Config, int | None]:
    """MoSS's settings in a preset, which its rivals start from: agent, data, epochs (None: until the minutes end)."""
    return paper(spec) if preset == "paper" else (*fast(spec), None)


def shared(kind: type, config: Any) -> dict[str, Any]:
    """The fields of `config` that are those of its base class `kind`."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(kind)}


def timrl(preset: str, spec: EnvSpec) -> tuple[timrl_agent.Config, trainer.Config, int | None]:
    """TIMRL in MoSS's settings, with one component per class: agent, data, epochs (None: until the minutes are spent).

    The publication says how often the recogniser is updated, that the priors are fixed, and that the policy acts on a
    sample of the recognised component (Eq. 10); `fast` acts on its mean and standard deviation. `fast` updates it more
    often: with 10 updates `cheetah_3task` was recognised in 64 to 81 % of the steps after 15 to 25 epochs, with 100 in
    76 to 96 %. Where windows are long that costs a third of the env steps. Beliefs decode transitions of the same task
    segment, in both presets, and in `fast` on base tasks, whose VAE is updated more often, from some of the steps; the
    rest is MoSS's.
    """
    base, data, epochs = common(preset, spec)
    recognizer = RecognizerConfig()
    updates, belief = 10, "sample"
    if preset == "fast":
        updates, belief = 100, "component"
        recognizer = RecognizerConfig(model_size=32, feed_forward_size=64, batch_size=max(4, 1_600 // spec.horizon))
    vae = dataclasses.replace(
        base.vae,
        num_components=max(2, len(timrl_agent.classes(spec))),
        decode="trajectory",
        elbo_steps=16 if preset == "fast" and _base_tasks(spec) > 1 else None,
        contrastive_weight=0.0,
        use_separated_prior=True,
    )
    agent = timrl_agent.Config(
        **shared(control.Config, base),
        vae=vae,
        recognizer=recognizer,
        recognizer_updates=updates,
        belief=belief,
    )
    return agent, data, epochs


def cemrl(preset: str, spec: EnvSpec) -> tuple[cemrl_agent.Config, trainer.Config, int | None]:
    """CEMRL-style inference in MoSS's settings, so that inference alone differs: agent, data, epochs as `common`'s."""
    base, data, epochs = common(preset, spec)
    sizes = (base.vae.hidden_size,) * 2 if base.vae.hidden_size else None
    vae = context_vae.Config(**shared(decoding.Config, base.vae), encoder_sizes=sizes)
    return cemrl_agent.Config(**shared(control.Config, base), vae=vae, belief=base.belief), data, epochs


def check(preset: str, known: Sequence[str] = PRESETS) -> None:
    """Raise `ConfigurationError` for an unknown preset."""
    if preset not in known:
        raise ConfigurationError(f"unknown preset {preset!r}: choose {' or '.join(known)}")

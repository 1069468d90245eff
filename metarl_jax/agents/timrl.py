"""TIMRL: a transformer recognises the class of a task, which picks a component of a Gaussian-mixture VAE; SAC acts."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metarl_jax.agents import belief_forms, control, imagination, inference
from metarl_jax.agents.hyperparameters import Values, replaced
from metarl_jax.data import statistics
from metarl_jax.data.replay import Replay, sample_windows, unscaled
from metarl_jax.data.statistics import Scale
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import gmm_vae, recognizer, reward_model, sac
from metarl_jax.learners.gmm_vae import Config as VAEConfig
from metarl_jax.learners.recognizer import Config as RecognizerConfig
from metarl_jax.networks.mixture import Mixture
from metarl_jax.types import Agent, Changes, EnvSpec, Metrics, Task, Transition

BLOCK = 64
"""Windows whose classes are recognised together: the attention of a whole pool would not fit a small memory."""


@dataclasses.dataclass(frozen=True)
class Config(control.Config):
    """How the three learners share an epoch."""

    vae: VAEConfig = dataclasses.field(default_factory=VAEConfig)
    recognizer: RecognizerConfig = dataclasses.field(default_factory=RecognizerConfig)
    belief: str = "component"
    """What the policy sees of the recognised component. `component`: its mean and standard deviation; `sample`: a
    sample of it (the paper's words); `mixture`: the class probabilities with the moments of all components."""
    labels: str = "task"
    """What the recogniser learns. `task`: the class of the task; `mixture`: the responsibilities of a mixture that is
    trained without labels."""
    vae_component: str = "label"
    """Which component the VAE trains, if there are labels: that of the `label`, or the one `recognized`."""
    forced_accuracy: float | None = None
    """Instead of the recogniser, the true class of the last step with this probability, else any other one (ablation;
    1 / K is a random choice). None: the recogniser."""
    recognizer_updates: int = 10
    """Recogniser updates per epoch, after those of the VAE."""


class State(NamedTuple):
    """What TIMRL learns."""

    vae: gmm_vae.State
    recognizer: recognizer.State
    sac: sac.State
    acting_encoder: Any
    """The VAE's as the last epoch found it: SAC's last beliefs are its, and so are those that the policy acts on."""
    acting_recognizer: Any
    """The recogniser's parameters, likewise."""
    scale: Scale
    """Of observations, actions and rewards, for what acts."""
    belief_scale: Scale
    task_scale: Scale
    """Of what critics alone are told."""
    reward_model: reward_model.State | None
    num_epochs: Int[Array, ""]


class Memory(NamedTuple):
    """What one agent remembers of its task: leading axis n."""

    carry: Float[Array, "n H"]
    recognizer: recognizer.Memory
    logits: Float[Array, "n K"]
    """Of the class that picks the component."""
    belief: Float[Array, "n b"]
    """Standardised, as the policy sees it."""


def classes(spec: EnvSpec) -> tuple[str, ...]:
    """Names of the classes: the base tasks, or the sub-tasks of a benchmark that has one base task."""
    return spec.families if len(spec.families) > 1 else spec.subtasks


def class_of(spec: EnvSpec, task: Task) -> Int[Array, "..."]:
    """Index into `classes`."""
    return task.family if len(spec.families) > 1 else task.label


def validate(config: Config, spec: EnvSpec) -> None:
    """Raise `ConfigurationError` for settings that contradict each other or the benchmark."""
    control.validate(config, spec)
    for name, known in {
        "belief": belief_forms.FORMS,
        "labels": ("task", "mixture"),
        "vae_component": ("label", "recognized"),
        "vae.decode": ("self", "next", "trajectory"),
        "recognizer.loss": tuple(recognizer.LOSSES),
    }.items():
        value = config
        for part in name.split("."):
            value = getattr(value, part)
        if value not in known:
            raise ConfigurationError(f"unknown {name} {value!r}: choose {', '.join(known)}")
    num, k = len(classes(spec)), config.vae.num_components
    if num < 2 and config.labels == "task":
        raise ConfigurationError(f"{spec.name} has one class of tasks: there is nothing to recognise")
    if k < num and config.labels == "task":
        raise ConfigurationError(
            f"{num} classes ({', '.join(classes(spec))}) need --vae.num_components >= {num}, got {k}"
        )
    inference.validate(config.vae, spec)
    imagination.validate(config, config.vae)
    if config.reward_model_updates and config.labels == "task" and len(spec.families) == 1:
        raise ConfigurationError(
            f"nobody knows to which sub-task of {spec.name} an imagined task belongs: use --imagined_episodes=0 "
            "--reward_model_updates=0, or --labels=mixture"
        )
    if config.vae.contrastive_weight:
        raise ConfigurationError("TIMRL has no contrastive loss: use --vae.contrastive_weight=0")
    if config.vae.base_tasks != "labels":
        raise ConfigurationError("TIMRL's recogniser is taught labels: use --vae.base_tasks=labels")
    if config.vae.base_task_weight:
        raise ConfigurationError("TIMRL's recogniser has the labels, not its VAE: use --vae.base_task_weight=0")
    if not 0.0 <= config.recognizer.dropout < 1.0:
        raise ConfigurationError(f"recognizer.dropout must be in [0, 1), got {config.recognizer.dropout}")
    if config.forced_accuracy is not None and not 0.0 <= config.forced_accuracy <= 1.0:
        raise ConfigurationError(f"forced_accuracy must be in [0, 1], got {config.forced_accuracy}")
    if config.labels == "mixture" and (config.forced_accuracy is not None or config.vae_component == "recognized"):
        raise ConfigurationError("without labels components stand for no class: use --labels=task")
    sizes = ("context", "num_heads", "num_layers", "model_size", "batch_size")
    counts = {f"recognizer.{name}": getattr(config.recognizer, name) for name in sizes}
    for name, count in (counts | {"recognizer_updates": config.recognizer_updates}).items():
        if count < 1:
            raise ConfigurationError(f"{name} must be >= 1, got {count}")
    if config.recognizer.model_size % (2 * config.recognizer.num_heads):
        raise ConfigurationError(
            f"recognizer.model_size ({config.recognizer.model_size}) must be a multiple of twice num_heads "
            f"({config.recognizer.num_heads})"
        )


def forced(accuracy: float, num_classes: int, label: Int[Array, "..."], data: jax.Array) -> Float[Array, "... K"]:
    """Logits of a class that is right with a probability, and otherwise any other one.

    Random bits come from `data` [..., d], so that a stored step is judged as it was when it was made: by Threefry,
    whose numbers under vmap are those of each key alone.
    """
    base = jax.random.key(0, impl="threefry2x32")
    bits = jnp.sum(jax.lax.bitcast_convert_type(data, jnp.uint32), -1)  # integers: exact in any order
    keys = jax.vmap(lambda b: jax.random.fold_in(base, b))(bits.ravel())
    uniform = jax.vmap(lambda k: jax.random.uniform(k, (2,)))(keys).reshape(*label.shape, 2)
    other = label + 1 + jnp.floor(uniform[..., 1] * (num_classes - 1)).astype(label.dtype)
    chosen = jnp.where(uniform[..., 0] < accuracy, label, other % num_classes)
    return gmm_vae.KNOWN * jax.nn.one_hot(chosen, num_classes)


def make(config: Config, spec: EnvSpec, values: Values | None = None) -> Agent:
    """TIMRL for environments of `spec`, as pure functions.

    `values` replace hyper-parameters of the configuration, which is checked without them: they may be traced.

    Raises:
      ConfigurationError: see `validate`.
    """
    validate(config, spec)
    config = replaced(config, values or {})
    k = config.vae.num_components
    vae_spec = gmm_vae.Spec(spec.obs_size, spec.action_size)
    recognizer_spec = recognizer.Spec(spec.obs_size, spec.action_size, k)
    sac_spec = control.sac_spec(config, spec, belief_forms.size(config.belief, k, config.vae.latent_size))
    imagined = imagination.make(config, spec)

    def init(key: PRNGKeyArray) -> State:
        key_vae, key_recognizer, key_sac, key_model = jax.random.split(key, 4)
        vae = gmm_vae.init(key_vae, config.vae, vae_spec)
        recogniser = recognizer.init(key_recognizer, config.recognizer, recognizer_spec)
        acting_encoder, acting_recognizer = jax.tree.map(jnp.copy, (vae.encoder, recogniser.params))
        return State(
            vae=vae,
            recognizer=recogniser,
            acting_encoder=acting_encoder,  # copies, so that all can be donated
            acting_recognizer=acting_recognizer,
            scale=unscaled(spec.obs_size, spec.action_size),
            reward_model=imagined.init(key_model),
            num_epochs=jnp.zeros((), jnp.int32),
            **control.init(key_sac, config, sac_spec)._asdict(),
        )

    def mixture(state: State, carry: jax.Array, logits: jax.Array) -> Mixture:
        """The encoder's components, the recogniser's choice among them (Eq. 10)."""
        return gmm_vae.mixture(state.acting_encoder, config.vae, vae_spec, carry)._replace(logits=logits)

    def read(state: State, q: Mixture, key: PRNGKeyArray) -> Float[Array, "... b"]:
        return state.belief_scale.apply(belief_forms.vector(config.belief, q, key))

    def begin(state: State, n: int) -> Memory:
        carry = gmm_vae.begin(config.vae, vae_spec, (n,))
        blank = recognizer.begin(config.recognizer, recognizer_spec, n)
        return Memory(carry, blank, blank.logits, read(state, mixture(state, carry, blank.logits), jax.random.key(0)))

    def act(state: State, obs: jax.Array, memory: Memory, key: PRNGKeyArray, explore: bool) -> jax.Array:
        q = mixture(state, memory.carry, memory.logits)
        belief, key = belief_forms.acted_on(config.belief, memory.belief, q, state.belief_scale, key)
        obs = control.seen(config, state.scale, obs)
        return sac.act(state.sac, config.sac, sac_spec, obs, belief, key, explore)

    def choose(recognised: jax.Array, transition: Transition) -> Float[Array, "... K"]:
        """Logits of the class after `transition`."""
        if config.forced_accuracy is None:
            return recognised
        return forced(config.forced_accuracy, k, class_of(spec, transition.task), transition.next_obs)

    def observe(state: State, memory: Memory, transition: Transition) -> Memory:
        carry = gmm_vae.step(state.acting_encoder, config.vae, vae_spec, state.scale, memory.carry, transition)
        after = recognizer.step(
            state.acting_recognizer, config.recognizer, recognizer_spec, state.scale, memory.recognizer, transition
        )
        logits = choose(after.logits, transition)
        return Memory(carry, after, logits, read(state, mixture(state, carry, logits), jax.random.key(0)))

    def describe(state: State, memory: Memory) -> dict[str, jax.Array]:
        q = mixture(state, memory.carry, memory.logits)
        belief = belief_forms.shown(config.belief, memory.belief, q, state.belief_scale)
        attention = jnp.mean(memory.recognizer.attention, -2)  # over heads
        return {"belief": belief, "component": jax.nn.softmax(memory.logits), "attention": attention}

    def train_vae(state: State, replay: Replay, scale: Scale, key: PRNGKeyArray) -> tuple[gmm_vae.State, Metrics]:
        """An epoch's VAE updates; the component that explains a window is given."""

        def step(vae: gmm_vae.State, windows: Transition, siblings: Transition | None, key: PRNGKeyArray):
            component = class_of(spec, windows.task) if config.labels == "task" else None
            if config.vae_component == "recognized":
                before, after = recognise(state.recognizer.params, scale, windows)
                component = jnp.argmax(after if config.vae.decode == "self" else before, -1)
            return gmm_vae.train_step(vae, windows, key, config.vae, vae_spec, scale, siblings, component)

        num = inference.num_updates(config, config.vae_updates, state.num_epochs)
        return inference.train(config, config.vae, step, state.vae, replay, num, key)

    def train_recognizer(
        learner: recognizer.State, encoder: Any, replay: Replay, scale: Scale, key: PRNGKeyArray
    ) -> tuple[recognizer.State, Metrics]:
        """The recogniser's own updates: no gradient reaches the encoder."""

        def body(learner, key):
            key_sample, key_train = jax.random.split(key)
            windows = sample_windows(replay, key_sample, config.recognizer.batch_size, config.window)
            if config.labels == "task":
                target = jax.nn.one_hot(class_of(spec, windows.task), k)
            else:
                beliefs = gmm_vae.infer(encoder, config.vae, vae_spec, scale, windows)
                target = jax.nn.softmax(beliefs.after.logits)
            return recognizer.train_step(learner, windows, target, key_train, config.recognizer, recognizer_spec, scale)

        learner, metrics = jax.lax.scan(body, learner, jax.random.split(key, config.recognizer_updates))
        return learner, jax.tree.map(jnp.mean, metrics)

    def learn_inference(state: State, replay: Replay, key: PRNGKeyArray) -> tuple[Changes, Metrics]:
        """An epoch's updates of the VAE, then of the recogniser."""
        key_vae, key_recognizer = jax.random.split(key)
        scale = statistics.scale(replay.moments)
        vae, vae_metrics = train_vae(state, replay, scale, key_vae)
        learner, metrics = train_recognizer(state.recognizer, vae.encoder, replay, scale, key_recognizer)
        updates = inference.num_updates(config, config.vae_updates, state.num_epochs) + config.recognizer_updates
        return {"vae": vae, "recognizer": learner}, vae_metrics | metrics | {"updates": updates}

    def recognise(
        params: Any, scale: Scale, windows: Transition
    ) -> tuple[Float[Array, "T N K"], Float[Array, "T N K"]]:
        """Logits of the chosen class before and after every step of windows [T, N]."""

        def window(one: Transition):
            part = jax.tree.map(lambda x: x[:, None], one)
            found = recognizer.infer(params, config.recognizer, recognizer_spec, scale, part)
            return found.before[:, 0], found.after[:, 0]

        lanes_first = jax.tree.map(lambda x: x.swapaxes(0, 1), windows)
        before, after = (x.swapaxes(0, 1) for x in jax.lax.map(window, lanes_first, batch_size=BLOCK))
        if config.forced_accuracy is not None:
            after = choose(after, windows)
            before = jnp.where(before.any(-1, keepdims=True), jnp.concatenate([before[:1], after[:-1]]), before)
        return before, after

    def make_pool(state: State, replay: Replay, key: PRNGKeyArray) -> sac.Batch:
        key_sample, key_before, key_after = jax.random.split(key, 3)
        windows = control.fresh_windows(config, replay, key_sample)
        beliefs = gmm_vae.infer(state.acting_encoder, config.vae, vae_spec, state.scale, windows)
        logits_before, logits_after = recognise(state.acting_recognizer, state.scale, windows)
        before = belief_forms.vector(config.belief, beliefs.before._replace(logits=logits_before), key_before)
        after = belief_forms.vector(config.belief, beliefs.after._replace(logits=logits_after), key_after)
        return control.pool(config, spec, state.scale, windows, before, after)

    def learn_control(state: State, replay: Replay, key: PRNGKeyArray) -> tuple[Changes, Metrics]:
        """An epoch's SAC updates on the beliefs of encoder and recogniser as the epoch finds them."""
        acting = {"acting_encoder": state.vae.encoder, "acting_recognizer": state.recognizer.params}
        acting |= {"scale": statistics.scale(replay.moments)}
        return control.epoch(config, sac_spec, state, acting, lambda s, k: make_pool(s, replay, k), True, key)

    stands_for = None if config.labels == "mixture" else lambda task: class_of(spec, task)
    parts = {"control": learn_control, "inference": learn_inference, **imagined.parts}
    return Agent(init, begin, act, observe, parts, describe, stands_for, imagined.gross_reward)

"""Our environments under Stable-Baselines3, which wants a vector environment of its own kind."""

import numpy as np
import pytest

import envs
from envs.interop import to_gymnasium

pytestmark = pytest.mark.slow


def vec_env(vector):
    """A `VecEnv` over a Gymnasium vector environment that resets itself in the step that ends an episode."""
    from stable_baselines3.common.vec_env import VecEnv

    class Adapter(VecEnv):
        def __init__(self):
            super().__init__(vector.num_envs, vector.single_observation_space, vector.single_action_space)

        def reset(self):
            return vector.reset(seed=self._seeds[0])[0]

        def step_async(self, actions):
            self.actions = actions

        def step_wait(self):
            obs, reward, terminated, truncated, info = vector.step(self.actions)
            infos = [{"TimeLimit.truncated": bool(t and not e)} for t, e in zip(truncated, terminated, strict=True)]
            for i in np.flatnonzero(terminated | truncated):
                infos[i]["terminal_observation"] = info["final_obs"][i]
            return obs, reward.astype(np.float32), terminated | truncated, infos

        def close(self):
            vector.close()

        def get_attr(self, attr_name, indices=None):
            return [getattr(vector, attr_name)] * self.num_envs

        def set_attr(self, attr_name, value, indices=None):
            setattr(vector, attr_name, value)

        def env_method(self, method_name, *args, indices=None, **kwargs):
            return [getattr(vector, method_name)(*args, **kwargs)] * self.num_envs

        def env_is_wrapped(self, wrapper_class, indices=None):
            return [False] * self.num_envs

    return Adapter()


def test_sac_of_stable_baselines_trains():
    """A thousand steps: it learns something, and its replay holds what our environment said."""
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    env = envs.make("point_robot", horizon=20, num_train_tasks=1)  # one goal: what a learner without memory can solve
    model = stable_baselines3.SAC(
        "MlpPolicy", vec_env(to_gymnasium(env, 4)), 1e-3, learning_starts=100, gradient_steps=4, seed=0
    )

    def score():
        vector = to_gymnasium(env, 20)
        obs, total = vector.reset(seed=0)[0], 0.0
        for _ in range(20):
            obs, reward, _, truncated, _ = vector.step(model.predict(obs, deterministic=True)[0])
            total += reward.mean()
        assert truncated.all()
        return total

    before = score()
    model.learn(1000)
    buffer = model.replay_buffer
    assert buffer.size() == 250 and buffer.timeouts[:250].sum() == 4 * (250 // 20) and buffer.dones[:250].sum() == 48
    moved = np.abs(buffer.next_observations[:250] - buffer.observations[:250]).max()
    assert moved <= 0.1 + 1e-5, "a transition leads into another episode"
    assert score() > before + 3.0

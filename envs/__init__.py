"""Task families on MuJoCo bodies, as pure functions: `env = envs.make("cheetah_vel")`."""

from envs.core import Environment, EnvSpec, State, Task
from envs.errors import ConfigurationError
from envs.registry import make, names

__all__ = ["ConfigurationError", "EnvSpec", "Environment", "State", "Task", "make", "names"]

"""Contacts of capsules: MJX and MJX-Warp made to agree with the C engine.

MuJoCo aligns the first tangent of a plane-capsule contact with the capsule. MJX 3.17 and its Warp sources do so
only for capsules that lie flatter than 60 degrees, and take the y axis for steeper ones (mujoco issue #2774).
Under a pyramidal friction cone the tangents matter: an ant's steep legs slide differently, up to 1 m/s in one
substep. And where a capsule meets a sphere or another capsule, MJX alone adds 1e-6 to the denominators of its nearest
points, which moves a humanoid's self-contacts and its speeds by up to 1e-4 in one substep. `repair` puts the C engine's
rules in place; tests/envs/test_physics.py fails where they do not hold.
"""

from functools import cache

import jax.numpy as jnp
import mujoco
from mujoco.mjx._src import collision_driver, collision_primitive, math


@collision_primitive.collider(ncon=2)
def _plane_capsule(plane, capsule):
    """dist [2], pos [2, 3] and frame [2, 3, 3] (normal, tangents) of the contacts of a capsule's two ends."""
    normal, axis = plane.mat[:, 2], capsule.mat[:, 2]
    along = axis - normal * jnp.dot(normal, axis)
    length = jnp.linalg.norm(along)
    # An upright capsule has no direction: the C engine's normalisation of a zero vector is x.
    tangent = jnp.where(length < mujoco.mjMINVAL, jnp.eye(3)[0], along / jnp.maximum(length, mujoco.mjMINVAL))
    frame = jnp.stack([normal, tangent, jnp.cross(normal, tangent)])
    ends = capsule.pos + jnp.array([[1.0], [-1.0]]) * axis * capsule.size[1]
    dist = (ends - plane.pos) @ normal - capsule.size[0]
    pos = ends - normal * (capsule.size[0] + 0.5 * dist)[:, None]
    return dist, pos, jnp.stack([frame, frame])


def _between(one, nearest_one, other, nearest_other):
    """dist, pos [3] and frame [3, 3] of the contact of two round geoms at the nearest points of their cores."""
    core = collision_primitive._sphere_sphere
    dist, pos, normal = core(nearest_one, one.size[0], nearest_other, other.size[0])
    return dist, pos, math.make_frame(normal)


@collision_primitive.collider(ncon=1)
def _sphere_capsule(sphere, capsule):
    axis, reach = capsule.mat[:, 2], capsule.size[1]
    along = jnp.clip(jnp.dot(axis, sphere.pos - capsule.pos), -reach, reach)
    return _between(sphere, sphere.pos, capsule, capsule.pos + along * axis)


@collision_primitive.collider(ncon=1)
def _capsule_capsule(one, other):
    """One contact, also of parallel capsules, where the C engine has two."""
    axis_one, axis_other = one.mat[:, 2] * one.size[1], other.mat[:, 2] * other.size[1]
    gap = other.pos - one.pos
    a, b, c = (jnp.dot(x, y) for x, y in ((axis_one, axis_one), (axis_one, axis_other), (axis_other, axis_other)))
    u, v = jnp.dot(axis_one, gap), -jnp.dot(axis_other, gap)
    # The nearest points of two lines, then of each segment to the other's: in units of half lengths.
    x = jnp.clip((c * u + b * v) / jnp.maximum(a * c - b * b, mujoco.mjMINVAL), -1.0, 1.0)
    y = jnp.clip((v + b * x) / c, -1.0, 1.0)
    x = jnp.clip((u + b * y) / a, -1.0, 1.0)
    return _between(one, one.pos + x * axis_one, other, other.pos + y * axis_other)


def repair() -> None:
    """Use the C engine's contacts in MJX. For the whole process, and only for programs traced from now on."""
    plane, sphere, capsule = (int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}")) for name in ("PLANE", "SPHERE", "CAPSULE"))
    ours = {
        (plane, capsule): _plane_capsule,
        (sphere, capsule): _sphere_capsule,
        (capsule, capsule): _capsule_capsule,
    }
    table = collision_driver._COLLISION_FUNC
    table.update({key: ours[pair] for key in table if (pair := tuple(map(int, key))) in ours})


@cache
def repair_warp() -> None:
    """Use the C engine's frames in MJX-Warp. For the whole process; must precede the first compiled kernel."""
    import warp as wp
    from mujoco.mjx.third_party.mujoco_warp._src import collision_primitive as kernels

    upstream = kernels.plane_capsule

    @wp.func
    def plane_capsule(
        plane_normal: wp.vec3,
        plane_pos: wp.vec3,
        capsule_pos: wp.vec3,
        capsule_axis: wp.vec3,
        capsule_radius: float,
        capsule_half_length: float,
    ):
        dist, pos, _frame = upstream(
            plane_normal, plane_pos, capsule_pos, capsule_axis, capsule_radius, capsule_half_length
        )
        n = plane_normal
        b = capsule_axis - n * wp.dot(n, capsule_axis)
        length = wp.length(b)  # type: ignore[call-overload]
        b = wp.vec3(1.0, 0.0, 0.0) if length < 1.0e-15 else b / length
        c = wp.cross(n, b)
        return dist, pos, wp.mat33(n[0], n[1], n[2], b[0], b[1], b[2], c[0], c[1], c[2])  # type: ignore[index]

    kernels.plane_capsule = plane_capsule

"""Contact frames of capsules on planes: MJX and MJX-Warp made to agree with the C engine.

MuJoCo aligns the first tangent of a plane-capsule contact with the capsule. MJX 3.17 and its Warp sources do so
only for capsules that lie flatter than 60 degrees, and take the y axis for steeper ones (mujoco issue #2774).
Under a pyramidal friction cone the tangents matter: an ant's steep legs slide differently, up to 1 m/s in one
substep. `repair` puts the C engine's rule in place; tests/envs/test_physics.py fails where it does not hold.
"""

from functools import cache

import jax.numpy as jnp
import mujoco
from mujoco.mjx._src import collision_driver, collision_primitive


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


def repair() -> None:
    """Use the C engine's frames in MJX. For the whole process, and only for programs traced from now on."""
    pair = mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_CAPSULE
    table = collision_driver._COLLISION_FUNC
    table.update({key: _plane_capsule for key in table if tuple(map(int, key)) == tuple(map(int, pair))})


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

from experiments import cli, moss, sweep


def test_a_sweep_has_every_other_value_of_its_settings_once():
    comparison = sweep.comparison("cheetah_vel", ("width", "discount", "updates"))
    preset, *others = comparison.arms
    width = [f"width {n} {n} (fast: 128 128)" for n in (64, 256)]
    discount = [f"discount {x} (fast: 0.97)" for x in (0.95, 0.985, 0.99)]
    assert others == [*width, *discount, "updates 800 (fast: 1600)", "updates 3200 (fast: 1600)"]
    assert comparison.arms[preset].flags == () and list(comparison.curves) == [
        f"curves_{setting}" for setting in ("width", "discount", "updates")
    ]
    assert comparison.curves["curves_width"] == [preset, *width]
    config = cli.configure(moss, ["--env=cheetah_vel", *comparison.arms[others[-1]].flags])
    assert config.agent.updates_per_pool * config.agent.sac.policy_every == config.agent.sac_updates == 3200


def test_a_sweep_of_everything_leaves_out_what_a_benchmark_cannot_have():
    """point_robot's episodes have 20 steps; who asks for longer windows there is told so."""
    assert "curves_vae_window" not in sweep.comparison("point_robot", tuple(sweep.SETTINGS)).curves
    assert len(sweep.comparison("point_robot", ("vae_window",)).arms) == 4

from experiments import ablations


def test_the_contrastive_loss_is_ablated_where_tasks_stay():
    left_out = {"without imagined tasks", "contrastive loss"}
    assert left_out <= set(ablations.comparison("cheetah_vel_ood").arms)
    assert not left_out & set(ablations.comparison("cheetah_vel_nonstat").arms)


def test_a_mixture_is_taught_base_tasks_where_there_are_several():
    for taught, finds in (("taught", False), ("found", True)):
        arm = f"a Gaussian per base task, {taught}"
        flags = ablations.comparison("ant_multitask").arms[arm].flags
        assert "--vae.num_components=3" in flags and ("--vae.base_tasks=rewards" in flags) == finds
        assert arm not in ablations.comparison("cheetah_vel_ood").arms


def test_what_fast_adds_is_ablated_where_it_does():
    arms_of = {env: ablations.comparison(env).arms for env in ("cheetah_vel_ood", "cheetah_multitask", "ant_multitask")}
    assert arms_of["cheetah_vel_ood"]["without imagined tasks"].flags == ("--imagined_episodes=0",)
    assert arms_of["cheetah_multitask"]["without head starts"].flags == ("--head_starts=0",)
    without = {env: {name for name in found if "without" in name} for env, found in arms_of.items()}
    assert without["cheetah_multitask"] == {"without head starts"} and not without["ant_multitask"]

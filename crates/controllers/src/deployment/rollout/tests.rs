//! Tables of steps, and rollouts played to their end.

use serde_json::{Value, json};

use super::*;

fn deployment(replicas: i32, surge: Value, unavailable: Value) -> Deployment {
    let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
    serde_json::from_value(json!({"spec": {
        "replicas": replicas,
        "selector": {},
        "template": {},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
    }}))
    .unwrap()
}

/// `existing` is how many pods there are, which may be more than `replicas` while they go.
fn set(name: &str, replicas: i32, available: i32, existing: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name},
        "spec": {"replicas": replicas, "selector": {}},
        "status": {"replicas": existing, "availableReplicas": available},
    }))
    .unwrap()
}

fn annotate(mut set: ReplicaSet, desired: i32, maximum: i32) -> ReplicaSet {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED.into(), desired.to_string());
    annotations.insert(MAXIMUM.into(), maximum.to_string());
    set
}

fn shown(step: &Step) -> String {
    let scales = step
        .scales
        .iter()
        .map(|scale| format!("{}={}", scale.name, scale.to));
    let created = step.create.iter().map(|size| format!("create={size}"));
    scales.chain(created).collect::<Vec<_>>().join(" ")
}

#[test]
fn percentages_round_to_the_safe_side() {
    let cases = [
        (4, json!("25%"), json!("25%"), (1, 1)),
        (3, json!("25%"), json!("25%"), (1, 0)),
        (10, json!("25%"), json!("25%"), (3, 2)),
        (0, json!("25%"), json!("25%"), (0, 0)),
        (3, json!(0), json!(0), (0, 1)),
        (3, json!("0%"), json!("10%"), (0, 1)),
        (2, json!(1), json!(5), (1, 2)),
        (3, Value::Null, Value::Null, (1, 0)),
    ];
    for (replicas, surge, unavailable, expected) in cases {
        let found = limits(&deployment(replicas, surge.clone(), unavailable.clone()));
        // With no pods asked for it does not matter which of the two may move.
        let found = if replicas == 0 { (found.0, 0) } else { found };
        assert_eq!(found, expected, "{replicas} {surge} {unavailable}");
    }
}

#[test]
fn the_next_step_of_a_rolling_update() {
    let cases = [
        // replicas, surge, unavailable; new (spec, available); old; expected
        ((3, 1, 0), (0, 0), vec![(3, 3)], "new=1"),
        ((3, 1, 0), (1, 0), vec![(3, 3)], ""),
        ((3, 1, 0), (1, 1), vec![(3, 3)], "old0=2"),
        ((4, 1, 1), (1, 0), vec![(4, 4)], "old0=3"),
        ((3, 0, 1), (0, 0), vec![(3, 3)], "old0=2"),
        ((3, 0, 1), (0, 0), vec![(2, 2)], "new=1"),
        // Pods that never became available go first, whatever the age of their set.
        ((10, 2, 2), (2, 0), vec![(8, 8), (2, 0)], "old1=0"),
        // An old set that has lost pods must not shrink below what is needed.
        ((3, 1, 0), (1, 1), vec![(3, 2)], "old0=2"),
        ((3, 1, 0), (1, 0), vec![(3, 2)], ""),
        // A status that is older than the size does not count what is going.
        ((3, 1, 0), (2, 2), vec![(2, 3)], "old0=1"),
        // Too large after scaling down.
        ((2, 1, 0), (4, 4), vec![], "new=2"),
        ((3, 1, 0), (3, 3), vec![(0, 0)], ""),
    ];
    for ((replicas, surge, unavailable), new, old, expected) in cases {
        let deployment = deployment(replicas, json!(surge), json!(unavailable));
        let new = set("new", new.0, new.1, new.0);
        let sized = |(index, size): (usize, &(i32, i32))| {
            set(&format!("old{index}"), size.0, size.1, size.0)
        };
        let old: Vec<ReplicaSet> = old.iter().enumerate().map(sized).collect();
        let sets: Vec<&ReplicaSet> = old.iter().chain([&new]).collect();
        let step = rolling(&deployment, Some(&new), &sets);
        assert_eq!(shown(&step), expected, "{new:?} {old:?}");
    }
}

#[test]
fn pods_that_an_old_set_has_not_let_go_of_count_towards_the_total() {
    let deployment = deployment(3, json!(1), json!(0));
    let new = set("new", 1, 1, 1);
    let going = set("old", 2, 3, 3);
    assert_eq!(
        shown(&rolling(&deployment, Some(&new), &[&going, &new])),
        ""
    );
    let gone = set("old", 2, 2, 2);
    let step = rolling(&deployment, Some(&new), &[&gone, &new]);
    assert_eq!(shown(&step), "new=2");
}

/// ReplicaSets follow late and in random order; the limits hold at every moment, and the rollout ends.
#[test]
fn every_rollout_keeps_its_limits_and_ends() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let replicas = random.i32(1..12);
        let surge = random.i32(0..4);
        let unavailable = random.i32(i32::from(surge == 0)..4).min(replicas);
        let deployment = deployment(replicas, json!(surge), json!(unavailable));
        // What is asked for, what exists, what is available, and what status says of the two.
        let (mut asked, mut exist, mut up) = ([0, replicas], [0, replicas], [0, replicas]);
        let (mut told_exist, mut told_up) = (exist, up);
        let mut moves = 0;
        while (told_up[0], told_exist) != (replicas, [replicas, 0]) {
            moves += 1;
            assert!(
                moves < 5000,
                "seed {seed} is stuck: {asked:?} {exist:?} {up:?}"
            );
            let which = random.usize(0..2);
            match random.u8(0..4) {
                0 => {
                    let new = set("new", asked[0], told_up[0], told_exist[0]);
                    let old = set("old", asked[1], told_up[1], told_exist[1]);
                    for scale in rolling(&deployment, Some(&new), &[&old, &new]).scales {
                        asked[usize::from(scale.name == "old")] = scale.to;
                    }
                }
                1 if exist[which] < asked[which] => exist[which] += 1,
                1 if exist[which] > asked[which] => {
                    exist[which] -= 1;
                    up[which] = up[which].min(exist[which]);
                }
                2 if up[which] < exist[which] => up[which] += 1,
                _ => {
                    told_exist[which] = exist[which];
                    told_up[which] = up[which];
                }
            }
            assert!(exist[0] + exist[1] <= replicas + surge, "seed {seed}");
            assert!(up[0] + up[1] >= replicas - unavailable, "seed {seed}");
        }
    }
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut deployment = deployment(3, Value::Null, Value::Null);
    let strategy = json!({"type": "Recreate"});
    deployment.spec.as_mut().unwrap().strategy = serde_json::from_value(strategy).unwrap();
    let full = set("old", 3, 3, 3);
    assert_eq!(shown(&recreate(&deployment, None, &[&full], true)), "old=0");
    let empty = set("old", 0, 0, 0);
    assert_eq!(shown(&recreate(&deployment, None, &[&empty], true)), "");
    assert_eq!(
        shown(&recreate(&deployment, None, &[&empty], false)),
        "create=3"
    );
    let new = set("new", 0, 0, 0);
    let sets = [&empty, &new];
    assert_eq!(
        shown(&recreate(&deployment, Some(&new), &sets, false)),
        "new=3"
    );
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    // The example of the documentation of Deployments: 10 replicas, surge 3, 8 old and 5 new, scaled to 15.
    let new = annotate(set("new", 5, 5, 5), 10, 13);
    let old = annotate(set("old", 8, 8, 8), 10, 13);
    let scaled = |replicas| {
        let deployment = deployment(replicas, json!(3), json!(2));
        assert!(is_scaled(
            &deployment,
            &[old.clone().into(), new.clone().into()]
        ));
        shown(&scale(&deployment, Some(&new), &[&old, &new]))
    };
    assert_eq!(scaled(15), "old=11 new=7");
    assert_eq!(scaled(5), "old=5 new=3");
    assert_eq!(scaled(0), "old=0 new=0");
}

#[test]
fn scaling_without_a_rollout_goes_to_the_one_set() {
    let deployment = deployment(5, json!(1), json!(0));
    let old = annotate(set("old", 0, 0, 0), 3, 4);
    for size in [3, 0] {
        let new = annotate(set("new", size, size, size), 3, 4);
        let step = scale(&deployment, Some(&new), &[&old, &new]);
        assert_eq!(shown(&step), "new=5");
    }
    assert_eq!(shown(&scale(&deployment, None, &[&old])), "old=5");
}

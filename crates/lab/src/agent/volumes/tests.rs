//! Volumes on a real file system.

use serde_json::{Value, json};

use super::*;

fn sources() -> Sources {
    let data = |pairs: &[(&str, &str)]| {
        let own = pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.as_bytes().to_vec()));
        own.collect::<BTreeMap<_, _>>()
    };
    Sources {
        config_maps: [("conf".to_string(), data(&[("a", "1"), ("b", "2")]))].into(),
        secrets: [("word".to_string(), data(&[("pass", "x")]))].into(),
    }
}

fn pod(volumes: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "labels": {"app": "w"}}, "spec": {"containers": [], "volumes": volumes}
    }))
    .unwrap()
}

#[test]
fn files_come_from_keys_and_fields() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(json!([
        {"name": "c", "configMap": {"name": "conf", "items": [{"key": "b", "path": "d/e", "mode": 0o400}]}},
        {"name": "s", "secret": {"secretName": "word"}},
        {"name": "p", "projected": {"sources": [
            {"configMap": {"name": "conf"}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
        ]}},
        {"name": "e", "emptyDir": {}},
        {"name": "o", "configMap": {"name": "none", "optional": true}}
    ]));
    let paths = prepare(&pod, dir.path(), &sources(), &Facts::default()).unwrap();
    let read =
        |volume: &str, file: &str| std::fs::read_to_string(paths[volume].join(file)).unwrap();
    assert_eq!(read("c", "d/e"), "2");
    let mode = std::fs::metadata(paths["c"].join("d/e"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o400);
    assert_eq!(read("s", "pass"), "x");
    assert_eq!(read("p", "a"), "1");
    assert_eq!(read("p", "labels"), "app=\"w\"");
    assert!(paths["e"].is_dir() && paths["o"].is_dir());
}

#[test]
fn what_is_missing_or_leads_out_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        (
            json!({"configMap": {"name": "none"}}),
            "configmap \"none\" not found",
        ),
        (
            json!({"configMap": {"name": "conf", "items": [{"key": "z", "path": "z"}]}}),
            "configmap \"conf\" references non-existent config key: z",
        ),
        (
            json!({"configMap": {"name": "conf", "items": [{"key": "a", "path": "../a"}]}}),
            "invalid path \"../a\"",
        ),
        (
            json!({"nfs": {"server": "x", "path": "/"}}),
            "the lab has no volumes of this kind",
        ),
    ];
    for (mut volume, want) in cases {
        volume["name"] = json!("v");
        let got = prepare(
            &pod(json!([volume])),
            dir.path(),
            &sources(),
            &Facts::default(),
        );
        assert_eq!(got.unwrap_err(), ("v".to_string(), want.to_string()));
    }
}

#[test]
fn all_references_are_looked_up_once() {
    let pod: Pod = serde_json::from_value(json!({"spec": {
        "volumes": [{"name": "c", "configMap": {"name": "conf"}}],
        "containers": [{"name": "a", "envFrom": [{"configMapRef": {"name": "conf"}}],
            "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "word", "key": "pass"}}}]}]
    }}))
    .unwrap();
    let want = Wanted {
        config_maps: vec!["conf".into()],
        secrets: vec!["word".into()],
    };
    assert_eq!(wanted(&pod), want);
}

#[test]
fn outer_mounts_come_before_inner_ones() {
    let dir = tempfile::tempdir().unwrap();
    let container: Container = serde_json::from_value(json!({"name": "c", "volumeMounts": [
        {"name": "v", "mountPath": "/data/in", "subPathExpr": "$(POD)"}, {"name": "v", "mountPath": "/data", "readOnly": true}
    ]}))
    .unwrap();
    let volumes = [("v".to_string(), dir.path().to_path_buf())].into();
    let got = mounts(&container, &volumes, |text| text.replace("$(POD)", "web")).unwrap();
    assert_eq!(got[0].target, Path::new("/data"));
    assert!(got[0].read_only && !got[1].read_only);
    assert_eq!(got[1].source, dir.path().join("web"));
}

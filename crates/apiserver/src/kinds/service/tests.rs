//! Defaults and validation of Services.

use serde_json::{Value, json};

use super::KIND;
use crate::kinds::check::tests::{changed, created};

/// A Service as it is after allocation, with some fields changed.
fn service(changes: Value) -> Value {
    let mut spec = json!({"clusterIP": "172.30.0.7", "clusterIPs": ["172.30.0.7"], "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80}]});
    for (key, value) in changes.as_object().unwrap() {
        if value.is_null() {
            spec.as_object_mut().unwrap().remove(key);
        } else {
            spec[key] = value.clone();
        }
    }
    json!({"spec": spec})
}

fn defaulted(changes: Value) -> Value {
    let mut object = service(changes);
    (KIND.default)(&mut object);
    object["spec"].clone()
}

#[test]
fn defaults_are_those_of_the_api() {
    let spec = defaulted(json!({"selector": {"a": "b"}}));
    assert_eq!(spec["type"], "ClusterIP");
    assert_eq!(spec["sessionAffinity"], "None");
    assert_eq!(spec["internalTrafficPolicy"], "Cluster");
    assert_eq!(
        spec["ports"],
        json!([{"port": 80, "protocol": "TCP", "targetPort": 80}])
    );
    assert!(spec.get("externalTrafficPolicy").is_none());
    assert!(spec.get("allocateLoadBalancerNodePorts").is_none());
    let spec = defaulted(json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP"}));
    assert_eq!(spec["externalTrafficPolicy"], "Cluster");
    assert_eq!(spec["allocateLoadBalancerNodePorts"], true);
    assert_eq!(
        spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"],
        10_800
    );
    assert_eq!(
        defaulted(json!({"externalIPs": ["203.0.113.9"]}))["externalTrafficPolicy"],
        "Cluster"
    );
    let named = defaulted(json!({"type": "ExternalName", "ports": null, "externalName": "a.b"}));
    assert!(named.get("internalTrafficPolicy").is_none());
}

#[test]
fn good_services_pass() {
    let good = [
        json!({}),
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
        json!({"type": "LoadBalancer", "loadBalancerSourceRanges": [" 203.0.113.000/025 "], "loadBalancerClass": "a.b/c"}),
        json!({"type": "ExternalName", "externalName": "db.example.", "clusterIP": null, "clusterIPs": null,
            "ipFamilies": null, "ipFamilyPolicy": null, "ports": null}),
        json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": null}),
        json!({"ports": [{"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53, "targetPort": "dns"}]}),
        json!({"clusterIPs": ["172.30.0.7", "fd00:172:30::7"], "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack"}),
        json!({"sessionAffinity": "ClientIP", "trafficDistribution": "PreferSameNode"}),
    ];
    for changes in good {
        assert_eq!(created(&KIND, service(changes)), [""; 0]);
    }
}

#[test]
fn what_a_service_can_get_wrong() {
    let cases = [
        (json!({"ports": null}), "spec.ports: Required value"),
        (
            json!({"ports": [{"port": 0, "targetPort": 80}]}),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"ports": [{"port": 80, "targetPort": 65536}]}),
            "spec.ports[0].targetPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"ports": [{"port": 80, "targetPort": "a--b"}]}),
            "spec.ports[0].targetPort: Invalid value: \"a--b\": must not contain consecutive hyphens",
        ),
        (
            json!({"ports": [{"port": 80, "protocol": "ICMP"}]}),
            "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            json!({"ports": [{"port": 80}, {"name": "b", "port": 81}]}),
            "spec.ports[0].name: Required value",
        ),
        (
            json!({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]}),
            "spec.ports[1].name: Duplicate value: \"a\"",
        ),
        (
            json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}),
            "spec.ports[1]: Duplicate value: {\"protocol\":\"TCP\",\"port\":80,\"targetPort\":0}",
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 30080}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            json!({"type": "NodePort", "ports": [{"name": "a", "port": 80, "nodePort": 30080},
                {"name": "b", "port": 81, "nodePort": 30080}]}),
            "spec.ports[1].nodePort: Duplicate value: 30080",
        ),
        (
            json!({"type": "Magic"}),
            "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \
             \"LoadBalancer\", \"NodePort\"",
        ),
        (
            json!({"type": "NodePort", "clusterIP": "None", "clusterIPs": ["None"]}),
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
        (
            json!({"type": "LoadBalancer", "ports": [{"port": 10250}]}),
            "spec.ports[0]: Invalid value: 10250: may not expose port 10250 externally since it is used by kubelet",
        ),
        (
            json!({"sessionAffinity": "Cookie"}),
            "spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\"",
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less \
             than 86400",
        ),
        (
            json!({"externalTrafficPolicy": "Local"}),
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ),
        (
            json!({"type": "NodePort", "externalTrafficPolicy": "Near"}),
            "spec.externalTrafficPolicy: Unsupported value: \"Near\": supported values: \"Cluster\", \"Local\"",
        ),
        (
            json!({"internalTrafficPolicy": "Near"}),
            "spec.internalTrafficPolicy: Unsupported value: \"Near\": supported values: \"Cluster\", \"Local\"",
        ),
        (
            json!({"healthCheckNodePort": 30000}),
            "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and \
             `externalTrafficPolicy` is 'Local'",
        ),
        (
            json!({"externalIPs": ["127.0.0.1"]}),
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (
            json!({"externalIPs": ["one"]}),
            "spec.externalIPs[0]: Invalid value: \"one\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0"]}),
            "spec.loadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. \
             10.9.8.0/24 or 2001:db8::/64)",
        ),
        (
            json!({"loadBalancerClass": "x"}),
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            json!({"allocateLoadBalancerNodePorts": true}),
            "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            json!({"trafficDistribution": "x"}),
            "spec.trafficDistribution: Unsupported value: \"x\": supported values: \"PreferClose\", \"PreferSameNode\", \
             \"PreferSameZone\"",
        ),
    ];
    for (changes, expected) in cases {
        assert_eq!(created(&KIND, service(changes)), [expected]);
    }
}

#[test]
fn external_names_have_nothing_else() {
    let errors = created(&KIND, service(json!({"type": "ExternalName"})));
    let expected = [
        "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
        "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
        "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
        "spec.externalName: Required value",
    ];
    assert_eq!(errors, expected);
}

#[test]
fn addresses_and_families_fit_together() {
    let cases = [
        (
            json!({"clusterIPs": ["172.30.0.8"]}),
            "spec.clusterIPs: Invalid value: [\"172.30.0.8\"]: first value must match `clusterIP`",
        ),
        (
            json!({"clusterIP": null}),
            "spec.clusterIPs: Invalid value: [\"172.30.0.7\"]: must be empty when `clusterIP` is not specified",
        ),
        (
            json!({"ipFamilies": ["IPv6"]}),
            "spec.clusterIPs[0]: Invalid value: \"172.30.0.7\": expected an IPv6 value as indicated by `ipFamilies[0]`",
        ),
        (
            json!({"ipFamilies": ["IPv5"]}),
            "spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"",
        ),
        (
            json!({"ipFamilies": ["IPv4", "IPv4"]}),
            "spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
        ),
        (
            json!({"ipFamilyPolicy": "Both"}),
            "spec.ipFamilyPolicy: Unsupported value: \"Both\": supported values: \"PreferDualStack\", \
             \"RequireDualStack\", \"SingleStack\"",
        ),
        (
            json!({"clusterIPs": ["172.30.0.7", "172.30.0.8"]}),
            "spec.clusterIPs: Invalid value: [\"172.30.0.7\",\"172.30.0.8\"]: may specify no more than one IP for each IP \
             family",
        ),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None", "172.30.0.8"]}),
            "spec.clusterIPs: Invalid value: [\"None\",\"172.30.0.8\"]: 'None' must be the first and only value",
        ),
    ];
    for (changes, expected) in cases {
        assert_eq!(created(&KIND, service(changes)), [expected]);
    }
}

#[test]
fn addresses_stay() {
    let dual = json!({"clusterIPs": ["172.30.0.7", "fd00:172:30::7"], "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack"});
    let errors = changed(&KIND, service(json!({})), |new| {
        new["spec"]["clusterIP"] = json!("172.30.0.8");
        new["spec"]["clusterIPs"] = json!(["172.30.0.8"]);
    });
    assert_eq!(
        errors,
        ["spec.clusterIPs[0]: Invalid value: [\"172.30.0.8\"]: may not change once set"]
    );
    let down = |policy: &'static str| {
        changed(&KIND, service(dual.clone()), move |new| {
            new["spec"]["clusterIPs"] = json!(["172.30.0.7"]);
            new["spec"]["ipFamilies"] = json!(["IPv4"]);
            new["spec"]["ipFamilyPolicy"] = json!(policy);
        })
    };
    assert_eq!(down("SingleStack"), [""; 0]);
    assert_eq!(
        down("PreferDualStack")[0],
        "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the \
         secondary clusterIP"
    );
    let class = changed(&KIND, service(json!({"type": "LoadBalancer"})), |new| {
        new["spec"]["loadBalancerClass"] = json!("a.b/c");
    });
    assert_eq!(
        class,
        ["spec.loadBalancerClass: Invalid value: \"a.b/c\": may not change once set"]
    );
}

#[test]
fn names_start_with_a_letter() {
    let mut object = service(json!({}));
    object["metadata"] = json!({"name": "1web"});
    assert!(
        created(&KIND, object)[0]
            .starts_with("metadata.name: Invalid value: \"1web\": a DNS-1035 label must")
    );
}

#[test]
fn load_balancers_tell_their_addresses() {
    let mut object = service(json!({"type": "LoadBalancer"}));
    object["metadata"] = json!({"name": "s", "namespace": "default"});
    object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}});
    (KIND.default)(&mut object);
    assert_eq!(
        object["status"]["loadBalancer"]["ingress"][0]["ipMode"],
        "VIP"
    );
    assert!((KIND.validate)(&object, None).is_empty());
    object["status"]["loadBalancer"]["ingress"] =
        json!([{"ip": "x", "ipMode": "VIP"}, {"hostname": "1.2.3.4"}]);
    let errors: Vec<String> = (KIND.validate)(&object, None)
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = [
        "status.loadBalancer.ingress[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
         2001:db8::ffff)",
        "status.loadBalancer.ingress[1].hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
    ];
    assert_eq!(errors, expected);
}

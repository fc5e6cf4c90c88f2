//! The kernel parts of the lab on the real kernel, in namespaces of their own.
#![allow(clippy::unwrap_used)] // A test that can't set up its network has failed.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use ipnet::IpNet;
use nix::sys::signal::Signal;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::link::Route;
use portolan_kernel::process::PidFd;
use portolan_kernel::topology::Host;
use portolan_kernel::{Links, Netns, fdpass, isolated, sysctl};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Connects from one host to another and says what the server saw as the client's address.
fn source_seen(client: &Host, server: &Host, address: IpAddr) -> IpAddr {
    let listener = server
        .run(|| TcpListener::bind((address, 7000)))
        .unwrap()
        .unwrap();
    let mut stream = client
        .run(|| TcpStream::connect((address, 7000)))
        .unwrap()
        .unwrap();
    stream.write_all(b"x").unwrap();
    let (mut accepted, from) = listener.accept().unwrap();
    accepted.read_exact(&mut [0]).unwrap();
    from.ip()
}

#[test]
fn hosts_talk_through_a_router_in_both_families() {
    isolated!(hosts_talk_through_a_router_in_both_families, {
        let (a, b, router) = (
            Host::new().unwrap(),
            Host::new().unwrap(),
            Host::router().unwrap(),
        );
        router
            .join(
                "toa",
                &[net("10.1.0.1/24"), net("fd00:1::1/64")],
                &a,
                "eth0",
                &[net("10.1.0.2/24"), net("fd00:1::2/64")],
            )
            .unwrap();
        router
            .join(
                "tob",
                &[net("10.2.0.1/24"), net("fd00:2::1/64")],
                &b,
                "eth0",
                &[net("10.2.0.2/24"), net("fd00:2::2/64")],
            )
            .unwrap();
        for (host, v4, v6) in [(&a, "10.1.0.1", "fd00:1::1"), (&b, "10.2.0.1", "fd00:2::1")] {
            host.route(net("0.0.0.0/0"), ip(v4)).unwrap();
            host.route(net("::/0"), ip(v6)).unwrap();
        }
        assert_eq!(source_seen(&a, &b, ip("10.2.0.2")), ip("10.1.0.2"));
        assert_eq!(source_seen(&a, &b, ip("fd00:2::2")), ip("fd00:1::2"));
    });
}

#[test]
fn hosts_talk_over_a_switch() {
    isolated!(hosts_talk_over_a_switch, {
        let (fabric, a, b) = (
            Host::new().unwrap(),
            Host::new().unwrap(),
            Host::new().unwrap(),
        );
        fabric.add_switch("br0").unwrap();
        fabric
            .plug("br0", "pa", &a, "eth0", &[net("192.168.0.11/24")])
            .unwrap();
        fabric
            .plug("br0", "pb", &b, "eth0", &[net("192.168.0.12/24")])
            .unwrap();
        assert_eq!(source_seen(&a, &b, ip("192.168.0.12")), ip("192.168.0.11"));
    });
}

#[test]
fn a_pod_link_routes_by_host_and_the_node_speaks_from_its_own_address() {
    isolated!(
        a_pod_link_routes_by_host_and_the_node_speaks_from_its_own_address,
        {
            let (node, pod) = (Host::router().unwrap(), Host::new().unwrap());
            node.add_switch("eth0").unwrap();
            node.set_up("eth0", &[net("192.168.0.11/24")]).unwrap();
            node.join("veth1", &[], &pod, "eth0", &[net("10.1.0.5/32")])
                .unwrap();
            let mut links = node.links().unwrap();
            links
                .add_link_address("veth1", net("169.254.1.1/32"))
                .unwrap();
            links
                .set_route(&Route::dev(net("10.1.0.5/32"), "veth1").from(ip("192.168.0.11")))
                .unwrap();
            let mut inside = pod.links().unwrap();
            inside
                .set_route(&Route::dev(net("169.254.1.1/32"), "eth0"))
                .unwrap();
            inside
                .set_route(&Route::via(net("0.0.0.0/0"), ip("169.254.1.1")))
                .unwrap();
            assert_eq!(source_seen(&node, &pod, ip("10.1.0.5")), ip("192.168.0.11"));
            assert_eq!(source_seen(&pod, &node, ip("192.168.0.11")), ip("10.1.0.5"));
        }
    );
}

#[test]
fn links_move_and_disappear_with_their_namespace() {
    isolated!(links_move_and_disappear_with_their_namespace, {
        let (one, two) = (Netns::new().unwrap(), Netns::new().unwrap());
        let mut links = Links::of(&one).unwrap();
        links.add_veth("a", "b", None).unwrap();
        links.move_to("b", &two, "moved").unwrap();
        assert_eq!(Links::of(&two).unwrap().names().unwrap(), ["lo", "moved"]);
        Links::of(&two).unwrap().delete("moved").unwrap();
        assert_eq!(links.names().unwrap(), ["lo"]);
    });
}

#[test]
fn refusals_come_in_the_kernels_words() {
    isolated!(refusals_come_in_the_kernels_words, {
        let host = Host::new().unwrap();
        let error = host.route(net("10.9.0.0/16"), ip("10.1.1.1")).unwrap_err();
        assert!(
            error.to_string().contains("Network is unreachable"),
            "{error}"
        );
        let error = host.links().unwrap().up("nothere").unwrap_err();
        assert!(error.to_string().contains("No such device"), "{error}");
    });
}

#[test]
fn settings_belong_to_one_namespace() {
    isolated!(settings_belong_to_one_namespace, {
        let (router, host) = (Host::router().unwrap(), Host::new().unwrap());
        assert_eq!(sysctl::read(&router.netns, "ipv4/ip_forward").unwrap(), "1");
        assert_eq!(
            sysctl::read(&router.netns, "ipv6/conf/all/forwarding").unwrap(),
            "1"
        );
        assert_eq!(sysctl::read(&host.netns, "ipv4/ip_forward").unwrap(), "0");
    });
}

#[test]
fn a_program_starts_inside_a_namespace_and_is_ended_by_pidfd() {
    isolated!(a_program_starts_inside_a_namespace_and_is_ended_by_pidfd, {
        let host = Host::new().unwrap();
        host.add_switch("mark0").unwrap();
        let mut command = Command::new("cat");
        command
            .arg("/proc/self/net/dev")
            .in_netns(&host.netns)
            .unwrap();
        assert!(
            String::from_utf8(command.output().unwrap().stdout)
                .unwrap()
                .contains("mark0")
        );
        let mut child = Command::new("sleep")
            .arg("1000")
            .die_with_parent(Signal::SIGKILL)
            .spawn()
            .unwrap();
        let process = PidFd::open(child.id()).unwrap();
        assert!(process.is_running());
        process.kill(Signal::SIGTERM).unwrap();
        assert!(process.wait_end(Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
    });
}

#[test]
fn open_files_travel_with_a_message() {
    let (mut left, mut right) = UnixStream::pair().unwrap();
    let (mut pipe_out, pipe_in) = std::io::pipe().unwrap();
    fdpass::send(&mut left, b"hello", &[pipe_in.as_raw_fd()]).unwrap();
    drop(pipe_in);
    let (message, fds) = fdpass::receive(&mut right).unwrap().unwrap();
    assert_eq!(message, b"hello");
    std::fs::File::from(fds.into_iter().next().unwrap())
        .write_all(b"through")
        .unwrap();
    let mut text = String::new();
    pipe_out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
    drop(left);
    assert!(fdpass::receive(&mut right).unwrap().is_none());
}

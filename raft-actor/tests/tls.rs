//! Clusters whose nodes know each other by certificates.

#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use actix::prelude::*;
use raft_actor::{
    Config, GetStatus, JoinError, MemoryDisk, NodeId, Phase, Propose, RaftActor, Refusal, Shutdown,
    StartError, TlsFile, TlsFileProblem,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

mod support;

use support::{configs, free_port, spawn, status, until};

/// A CA, and the folder of its files.
struct Ca(TempDir, Issuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let (dir, key) = (TempDir::new().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        Self(dir, Issuer::new(params, key))
    }

    /// The files of a node whose certificate has this name, under names of its own.
    fn files(&self, name: &str) -> [PathBuf; 3] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.1).unwrap();
        let path = |end: &str| self.0.path().join(format!("{name}{end}"));
        fs::write(path(".pem"), cert.pem()).unwrap();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(path(".key")).unwrap();
        file.write_all(key.serialize_pem().as_bytes()).unwrap();
        [self.0.path().join("ca.pem"), path(".pem"), path(".key")]
    }

    fn secure(&self, config: Config) -> Config {
        let [ca, cert, key] = self.files(&format!("node-{}", config.id().unwrap()));
        config.tls(ca, cert, key)
    }
}

async fn commit(node: &Addr<RaftActor>) {
    let committed = until("a commit", async || {
        node.send(Propose::new("x")).await.unwrap().ok()
    });
    committed.await;
}

async fn shut_down(nodes: &[Addr<RaftActor>]) {
    for node in nodes {
        node.send(Shutdown).await.unwrap().unwrap();
    }
}

#[actix::test]
async fn three_nodes_commit_and_one_that_lost_its_right_takes_no_part() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut configs = configs(3);
    let plain = configs[2].0.clone();
    for (config, _) in &mut configs {
        *config = ca.secure(config.clone());
    }
    let nodes = spawn(&configs);
    for node in &nodes {
        commit(node).await;
    }
    // Node 3 comes back with a certificate of another CA, and then without any.
    let mut third = nodes[2].clone();
    for wrong in [other.secure(plain.clone()), plain] {
        third.send(Shutdown).await.unwrap().unwrap();
        let before = status(&nodes[0]).await.commit;
        third = RaftActor::spawn(wrong).unwrap();
        for _ in 0..20 {
            commit(&nodes[0]).await;
        }
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let alone = status(&third).await;
        assert!(alone.leader.is_none() && alone.commit <= before);
        let connected = |status: raft_actor::NodeStatus| {
            let others = status.members.into_iter().filter(|m| m.connected);
            others.map(|member| member.id.0).collect::<Vec<_>>()
        };
        assert_eq!(connected(alone), [3]);
        assert_eq!(connected(status(&nodes[0]).await), [1, 2]);
        assert!(status(&nodes[0]).await.commit.0 >= before.0 + 20);
    }
    // With its own again it is one of them.
    third.send(Shutdown).await.unwrap().unwrap();
    let third = RaftActor::spawn(configs[2].0.clone()).unwrap();
    commit(&third).await;
    shut_down(&[nodes[0].clone(), nodes[1].clone(), third]).await;
}

#[actix::test]
async fn a_cluster_in_the_making_says_whose_certificate_is_wrong() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut configs = configs(3);
    for (config, _) in &mut configs {
        let ca = if config.id() == Some(NodeId(3)) {
            &other
        } else {
            &ca
        };
        *config = ca.secure(config.clone());
    }
    let nodes = spawn(&configs);
    for (node, whom) in [(0, NodeId(3)), (2, NodeId(1))] {
        until("a reason", async || {
            let Phase::Forming { waiting_for } = nodes[node].send(GetStatus).await.unwrap().phase
            else {
                panic!("it cannot be born");
            };
            let (_, why) = waiting_for.into_iter().find(|(id, _)| *id == whom)?;
            let named = why.contains("certificate is of a CA that is not trusted");
            named.then_some(())
        })
        .await;
    }
    shut_down(&nodes).await;
}

#[actix::test]
async fn another_name_may_be_bound_to_a_node() {
    let ca = Ca::new();
    let mut configs = configs(2);
    for (config, _) in &mut configs {
        let bound = config.clone().tls_name(NodeId(2), "two.example");
        *config = match bound.id() {
            Some(NodeId(2)) => {
                let [ca, cert, key] = ca.files("two.example");
                bound.tls(ca, cert, key)
            }
            _ => ca.secure(bound),
        };
    }
    let nodes = spawn(&configs);
    commit(&nodes[0]).await;
    commit(&nodes[1]).await;
    shut_down(&nodes).await;
}

#[actix::test]
async fn a_start_that_would_be_insecure_is_refused() {
    let ca = Ca::new();
    let alone = |listen: &str| {
        Config::new(NodeId(1))
            .peers([(NodeId(1), "127.0.0.1:9")])
            .memory(MemoryDisk::new())
            .listen(listen)
    };
    let refused = RaftActor::spawn(alone("0.0.0.0:0")).unwrap_err();
    let StartError::Insecure { address } = refused else {
        panic!("{refused}");
    };
    assert!(address.ip().is_unspecified());
    let allowed = [
        alone("127.0.0.1:0"),
        alone("0.0.0.0:0").insecure(),
        ca.secure(alone("0.0.0.0:0")),
    ];
    for config in allowed {
        let node = RaftActor::spawn(config).unwrap();
        shut_down(&[node]).await;
    }
}

#[actix::test]
async fn a_start_with_files_that_are_no_good_says_which_and_why() {
    let (ca, other) = (Ca::new(), Ca::new());
    let config = || {
        Config::new(NodeId(1))
            .peers([(NodeId(1), "127.0.0.1:9")])
            .memory(MemoryDisk::new())
            .listen("127.0.0.1:0")
    };
    let [ca_file, cert, key] = ca.files("node-1");
    let [.., foreign] = other.files("node-1");
    let refused = RaftActor::spawn(config().tls(&ca_file, &cert, &foreign)).unwrap_err();
    let text = refused.to_string();
    let StartError::Tls(error) = refused else {
        panic!("{text}");
    };
    assert_eq!((error.file, &error.path), (TlsFile::Key, &foreign));
    assert!(matches!(error.problem, TlsFileProblem::KeyMismatch));
    assert!(text.contains(&foreign.display().to_string()), "{text}");
    let missing = ca.0.path().join("nowhere.pem");
    let refused = RaftActor::spawn(config().tls(&ca_file, &missing, &key)).unwrap_err();
    let text = refused.to_string();
    let expected = format!(
        "TLS: the certificate file {}: there is no such file",
        missing.display()
    );
    assert_eq!(text, expected);
}

/// A node that leads or joins, with the certificate of a name, and where it is.
fn of_name(ca: &Ca, name: &str) -> (Config, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let [ca, cert, key] = ca.files(name);
    let config = Config::at(&address).memory(MemoryDisk::new());
    let config = config.join_timeout(std::time::Duration::from_secs(5));
    (config.tls(ca, cert, key), address)
}

#[actix::test]
async fn who_joins_shows_a_certificate_that_is_its_own() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (config, at) = of_name(&ca, "node-1");
    let first = RaftActor::lead(config).await.unwrap();
    let join = async |config: Config| RaftActor::join(config, [&at]).await;
    let name_refused = async |config: Config| match join(config).await {
        Err(StartError::Join(JoinError::Refused { refusal, .. })) => match *refusal {
            Refusal::TlsName { name } => name,
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    };
    // One for the id that it will have,
    let second = join(of_name(&ca, "node-2").0).await.unwrap();
    assert_eq!(status(&second).await.id, NodeId(2));
    // none for another id, and none for that of a member,
    assert_eq!(name_refused(of_name(&ca, "node-7").0).await, "node-3");
    assert_eq!(name_refused(of_name(&ca, "node-1").0).await, "node-3");
    let (config, _) = of_name(&ca, "node-1");
    assert_eq!(name_refused(config.own_tls_name("node-1")).await, "node-1");
    // none for a name of another form that it does not hold,
    let (config, _) = of_name(&ca, "elsewhere.example");
    assert_eq!(
        name_refused(config.own_tls_name("three.example")).await,
        "three.example"
    );
    // and one for a name of its own, which is nobody's after that.
    let third = of_name(&ca, "three.example")
        .0
        .own_tls_name("three.example");
    let third = join(third).await.unwrap();
    assert_eq!(status(&third).await.id, NodeId(3));
    let (config, _) = of_name(&ca, "three.example");
    assert_eq!(
        name_refused(config.own_tls_name("three.example")).await,
        "three.example"
    );
    // Another CA's is none at all.
    match join(of_name(&other, "node-4").0).await {
        Err(StartError::Join(JoinError::Refused { .. } | JoinError::TimedOut { .. })) => {}
        other => panic!("{other:?}"),
    }
    for node in [&first, &second, &third] {
        commit(node).await;
    }
    until("three voters", async || {
        let configuration = status(&third).await.configuration;
        (configuration.voters.len() == 3).then_some(())
    })
    .await;
    let members = status(&first).await.configuration.members();
    assert_eq!(members.len(), 3);
    shut_down(&[first, second, third]).await;
}

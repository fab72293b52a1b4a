//! Clusters that live: led, joined, left, replaced. Real actors and sockets, disks of memory.

#![allow(clippy::unwrap_used)]

#[path = "support/ports.rs"]
mod ports;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_actor::{
    ChangeMembership, Config, ConfigError, GetStatus, Invite, JoinError, MemoryDisk, NodeId,
    NodeStatus, Phase, Propose, RaftActor, Refusal, Role, Shutdown, StartError, Step,
    TransferLeadership,
};

use ports::free_port;

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// A folder and an address, whoever runs there.
#[derive(Clone)]
struct Seat {
    address: String,
    disk: MemoryDisk,
}

impl Seat {
    fn new() -> Self {
        Self {
            address: free_address(),
            disk: MemoryDisk::new(),
        }
    }

    /// The same folder elsewhere.
    fn moved(&self) -> Self {
        Self {
            address: free_address(),
            disk: self.disk.clone(),
        }
    }

    /// Another folder at the same address.
    fn wiped(&self) -> Self {
        Self {
            address: self.address.clone(),
            disk: MemoryDisk::new(),
        }
    }

    fn config(&self) -> Config {
        Config::at(&self.address)
            .memory(self.disk.clone())
            .heartbeat_interval(Duration::from_millis(30))
            .election_timeout(Duration::from_millis(150), Duration::from_millis(300))
            .join_timeout(Duration::from_secs(15))
    }

    async fn lead(&self) -> Node {
        self.is(RaftActor::lead(self.config()).await.unwrap()).await
    }

    async fn join(&self, at: &[&Seat]) -> Node {
        self.is(self.try_join(at).await.unwrap()).await
    }

    async fn try_join(&self, at: &[&Seat]) -> Result<Addr<RaftActor>, StartError> {
        let addresses = at.iter().map(|seat| seat.address.clone());
        RaftActor::join(self.config(), addresses).await
    }

    async fn is(&self, actor: Addr<RaftActor>) -> Node {
        let id = actor.send(GetStatus).await.unwrap().id;
        Node { actor, id }
    }
}

struct Node {
    actor: Addr<RaftActor>,
    id: NodeId,
}

impl Node {
    async fn status(&self) -> NodeStatus {
        self.actor.send(GetStatus).await.unwrap()
    }

    async fn commit(&self, command: &str) {
        let propose = Propose::new(command.to_owned());
        self.actor.send(propose).await.unwrap().unwrap();
    }

    async fn stop(&self) {
        self.actor.send(Shutdown).await.unwrap().unwrap();
    }

    /// Waits until it sees these voters, and nobody else but learners.
    async fn sees(&self, voters: &[&Node]) {
        let voters: Vec<_> = voters.iter().map(|node| node.id).collect();
        until("these voters", async || {
            let configuration = self.status().await.configuration;
            (configuration.voters.iter().eq(voters.iter()) && !configuration.is_joint())
                .then_some(())
        })
        .await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.actor.do_send(Shutdown);
    }
}

async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        actix_rt::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Three voters: one that leads, and two that have joined.
async fn three() -> ([Seat; 3], [Node; 3]) {
    let seats = [Seat::new(), Seat::new(), Seat::new()];
    let first = seats[0].lead().await;
    let second = seats[1].join(&[&seats[0]]).await;
    let third = seats[2].join(&[&seats[1]]).await;
    let nodes = [first, second, third];
    for node in &nodes {
        node.sees(&[&nodes[0], &nodes[1], &nodes[2]]).await;
    }
    (seats, nodes)
}

#[actix::test]
async fn one_leads_and_others_join_by_any_member() {
    let (seats, nodes) = three().await;
    assert_eq!(nodes.each_ref().map(|node| node.id.0), [1, 2, 3]);
    for node in &nodes {
        node.commit("from each").await;
    }
    let clusters = nodes.each_ref().map(|node| node.status());
    let mut seen = Vec::new();
    for status in clusters {
        let status = status.await;
        let addresses: Vec<_> = status
            .members
            .iter()
            .map(|member| member.address.clone())
            .collect();
        assert_eq!(addresses, seats.each_ref().map(|seat| seat.address.clone()));
        seen.push(status.cluster.unwrap());
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
}

#[actix::test]
async fn all_go_on_by_whatever_call() {
    let (seats, nodes) = three().await;
    nodes[1].commit("before").await;
    let ids = nodes.each_ref().map(|node| node.id);
    for node in &nodes {
        node.stop().await;
    }
    let nodes = [
        seats[0].lead().await,
        seats[1].join(&[&seats[0], &seats[2]]).await,
        seats[2]
            .is(RaftActor::spawn(seats[2].config()).unwrap())
            .await,
    ];
    assert_eq!(nodes.each_ref().map(|node| node.id), ids);
    nodes[2].commit("after").await;
    let status = nodes[2].status().await;
    assert_eq!(status.configuration.voters.len(), 3);
}

#[actix::test]
async fn a_join_that_was_broken_off_is_repeated_with_the_same_id() {
    let seats = [Seat::new(), Seat::new()];
    let first = seats[0].lead().await;
    // It is told its id, and does not hear it.
    for _ in 0..3 {
        let at = [&seats[0]];
        let join = seats[1].try_join(&at);
        let broken = tokio::time::timeout(Duration::from_millis(30), join).await;
        if let Ok(Ok(actor)) = broken {
            actor.send(Shutdown).await.unwrap().unwrap();
        }
        // Its tasks let go of the address when they are dropped, a moment later.
        until("the address to be free", async || {
            TcpListener::bind(&seats[1].address).ok().map(drop)
        })
        .await;
    }
    let second = seats[1].join(&[&seats[0]]).await;
    first.sees(&[&first, &second]).await;
    assert_eq!(second.id, NodeId(2));
    assert_eq!(first.status().await.configuration.members().len(), 2);
}

#[actix::test]
async fn several_join_at_once_and_each_gets_an_id_of_its_own() {
    let lead = Seat::new();
    let first = lead.lead().await;
    let seats: Vec<_> = (0..4).map(|_| Seat::new()).collect();
    let joins = seats.iter().map(|seat| {
        let (seat, lead) = (seat.clone(), lead.clone());
        actix_rt::spawn(async move { seat.join(&[&lead]).await })
    });
    let mut nodes = vec![first];
    for join in joins.collect::<Vec<_>>() {
        nodes.push(join.await.unwrap());
    }
    nodes.sort_by_key(|node| node.id);
    let ids: Vec<_> = nodes.iter().map(|node| node.id.0).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    nodes[0].sees(&nodes.iter().collect::<Vec<_>>()).await;
}

#[actix::test]
async fn a_learner_stays_one_until_it_is_promoted() {
    let (seats, nodes) = three().await;
    let seat = Seat::new();
    let config = seat.config().learner(true);
    let actor = RaftActor::join(config, [&seats[1].address]).await.unwrap();
    let learner = seat.is(actor).await;
    nodes[0].commit("for the learner").await;
    until("the learner to have it all", async || {
        let (theirs, ours) = (learner.status().await, nodes[0].status().await);
        (theirs.applied == ours.applied).then_some(())
    })
    .await;
    let configuration = learner.status().await.configuration;
    assert!(configuration.learners.contains(&learner.id) && configuration.joining.is_empty());
    let change = ChangeMembership::new().promote(learner.id);
    learner.actor.send(change).await.unwrap().unwrap();
    nodes[0]
        .sees(&[&nodes[0], &nodes[1], &nodes[2], &learner])
        .await;
}

#[actix::test]
async fn a_wiped_node_is_refused_and_joins_in_its_own_place() {
    let (seats, nodes) = three().await;
    let [first, second, third] = nodes;
    third.stop().await;
    // A second cluster is not begun at the address of a node that is looked for.
    let wiped = seats[2].wiped();
    match RaftActor::lead(wiped.config()).await {
        Err(StartError::Join(JoinError::Expected { node, .. })) => assert_eq!(node, third.id),
        other => panic!("{other:?}"),
    }
    // One call, and it is back: with another id, in the old one's place.
    let fourth = wiped.join(&[&seats[0]]).await;
    assert_eq!(fourth.id, NodeId(4));
    first.sees(&[&first, &second, &fourth]).await;
    fourth.commit("back").await;
    assert_eq!(first.status().await.configuration.last_id, third.id);
}

#[actix::test]
async fn one_that_is_gone_is_replaced_and_one_that_lives_is_not() {
    let (seats, nodes) = three().await;
    let [first, second, third] = nodes;
    let seat = Seat::new();
    let replacing = |id| RaftActor::join(seat.config().replacing(id), [seats[0].address.clone()]);
    match replacing(second.id).await {
        Err(StartError::Join(JoinError::Refused { refusal, .. })) => {
            assert_eq!(*refusal, Refusal::Alive { node: second.id });
        }
        other => panic!("{other:?}"),
    }
    match replacing(NodeId(9)).await {
        Err(StartError::Join(JoinError::Refused { refusal, .. })) => {
            assert_eq!(*refusal, Refusal::UnknownNode { node: NodeId(9) });
        }
        other => panic!("{other:?}"),
    }
    third.stop().await;
    let fourth = seat.is(replacing(third.id).await.unwrap()).await;
    first.sees(&[&first, &second, &fourth]).await;
}

#[actix::test]
async fn who_cannot_be_reached_changes_nothing() {
    let (seats, nodes) = three().await;
    let before = nodes[0].status().await;
    let seat = Seat::new();
    let nobody = free_address();
    let config = seat.config().advertise(&nobody);
    match RaftActor::join(config, [&seats[1].address]).await {
        Err(StartError::Join(JoinError::Refused { refusal, .. })) => {
            assert_eq!(*refusal, Refusal::Unreachable { address: nobody });
        }
        other => panic!("{other:?}"),
    }
    let after = nodes[0].status().await;
    assert_eq!(after.configuration, before.configuration);
}

#[actix::test]
async fn nobody_joins_where_nobody_may() {
    let seats = [Seat::new(), Seat::new()];
    let actor = RaftActor::lead(seats[0].config().joins(false))
        .await
        .unwrap();
    let _first = seats[0].is(actor).await;
    match seats[1].try_join(&[&seats[0]]).await {
        Err(StartError::Join(JoinError::Refused { refusal, .. })) => {
            assert_eq!(*refusal, Refusal::NoJoins);
        }
        other => panic!("{other:?}"),
    }
}

#[actix::test]
async fn two_clusters_stay_two() {
    let seats = [Seat::new(), Seat::new(), Seat::new()];
    let one = seats[0].lead().await;
    let two = seats[1].join(&[&seats[0]]).await;
    let other = seats[2].lead().await;
    let cluster = async |of: &Node| until("a birth", async || of.status().await.cluster).await;
    let ids = (cluster(&one).await, cluster(&other).await);
    assert_ne!(ids.0, ids.1);
    two.stop().await;
    match seats[1].try_join(&[&seats[2]]).await {
        Err(StartError::Join(JoinError::OtherCluster { ours, .. })) => assert_eq!(ours, ids.0),
        other => panic!("{other:?}"),
    }
    // With an address of its own beside the wrong one, it finds its way.
    let two = seats[1].join(&[&seats[2], &seats[0]]).await;
    two.commit("still here").await;
    assert_eq!(other.status().await.configuration.members().len(), 1);
}

#[actix::test]
async fn who_comes_back_elsewhere_is_found_and_said_to_all() {
    let (seats, nodes) = three().await;
    let [first, second, third] = nodes;
    third.stop().await;
    let moved = seats[2].moved();
    let third = moved.is(RaftActor::spawn(moved.config()).unwrap()).await;
    third.commit("from elsewhere").await;
    until("all to know the new address", async || {
        for node in [&first, &second, &third] {
            let configuration = node.status().await.configuration;
            if configuration.about[&third.id].address != moved.address {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[actix::test]
async fn all_move_at_once_and_find_each_other_by_one_address() {
    let (seats, nodes) = three().await;
    for node in &nodes {
        node.stop().await;
    }
    let moved = seats.each_ref().map(Seat::moved);
    let nodes = [
        moved[0].lead().await,
        moved[1].join(&[&moved[0]]).await,
        moved[2].join(&[&moved[0], &moved[1]]).await,
    ];
    nodes[2].commit("all elsewhere").await;
}

#[actix::test]
async fn who_waits_is_invited_by_any_member() {
    let (_, nodes) = three().await;
    let seat = Seat::new();
    let waiting = {
        let seat = seat.clone();
        actix_rt::spawn(async move { seat.join(&[]).await })
    };
    let id = until("the invited one", async || {
        let invite = Invite::new(&seat.address).timeout(Duration::from_secs(5));
        nodes[2].actor.send(invite).await.unwrap().ok()
    })
    .await;
    let fourth = waiting.await.unwrap();
    assert_eq!(fourth.id, id);
    nodes[0]
        .sees(&[&nodes[0], &nodes[1], &nodes[2], &fourth])
        .await;
}

#[actix::test]
async fn a_fixed_list_grows_too() {
    let seats = [Seat::new(), Seat::new(), Seat::new()];
    let peers: Vec<_> = (1..)
        .map(NodeId)
        .zip(seats.iter().map(|seat| seat.address.clone()))
        .collect();
    let config = |id: u64| {
        let seat = &seats[id as usize - 1];
        Config::new(NodeId(id))
            .peers(peers.clone())
            .memory(seat.disk.clone())
            .heartbeat_interval(Duration::from_millis(30))
            .election_timeout(Duration::from_millis(150), Duration::from_millis(300))
    };
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let actor = RaftActor::spawn(config(id)).unwrap();
        nodes.push(Node {
            actor,
            id: NodeId(id),
        });
    }
    nodes[0].commit("born").await;
    let seat = Seat::new();
    let fourth = seat.join(&[&seats[2]]).await;
    assert_eq!(fourth.id, NodeId(4));
    nodes[1]
        .sees(&[&nodes[0], &nodes[1], &nodes[2], &fourth])
        .await;
    // The list is of those that it was born of; it says no more than where to look.
    nodes[1].stop().await;
    let actor = RaftActor::spawn(config(2)).unwrap();
    nodes[1] = Node {
        actor,
        id: NodeId(2),
    };
    nodes[1].commit("with the list of before").await;
}

#[actix::test]
async fn what_cannot_be_is_said() {
    let seat = Seat::new();
    let given = Config::new(NodeId(3)).peers([(NodeId(3), seat.address.clone())]);
    let given = given.memory(MemoryDisk::new());
    let id_given = |result: Result<Addr<RaftActor>, StartError>| {
        matches!(
            result,
            Err(StartError::Config(ConfigError::IdGiven { id: NodeId(3) }))
        )
    };
    assert!(id_given(RaftActor::lead(given.clone()).await));
    assert!(id_given(RaftActor::join(given, ["127.0.0.1:1"]).await));
    assert!(matches!(
        RaftActor::spawn(seat.config()),
        Err(StartError::Config(ConfigError::NotBorn))
    ));
    match RaftActor::join(
        seat.config().join_timeout(Duration::from_secs(1)),
        [free_address()],
    )
    .await
    {
        Err(StartError::Join(JoinError::TimedOut { asked, .. })) => assert_eq!(asked.len(), 1),
        other => panic!("{other:?}"),
    }
    // Nothing has happened: the same folder leads.
    let node = seat.lead().await;
    assert!(matches!(node.status().await.phase, Phase::Running));
    until("it to lead", async || {
        (node.status().await.role == Role::Leader).then_some(())
    })
    .await;
}

#[actix::test]
async fn who_was_let_in_and_never_came_is_removed_again() {
    let seats = [Seat::new(), Seat::new()];
    let config = seats[0].config().joiner_timeout(Duration::from_secs(1));
    let first = seats[0].is(RaftActor::lead(config).await.unwrap()).await;
    // Its start breaks off as soon as it is in.
    let at = [&seats[0]];
    let ghost = Seat::new()
        .config()
        .at_step(|step| assert_ne!(step, Step::JoinTold));
    let address = seats[0].address.clone();
    let joining = actix_rt::spawn(async move { RaftActor::join(ghost, [address]).await });
    assert!(joining.await.unwrap_err().is_panic());
    let joining = first.status().await.configuration.joining;
    assert!(joining.into_iter().eq([NodeId(2)]));
    until("it to be removed", async || {
        let configuration = first.status().await.configuration;
        (configuration.members().len() == 1).then_some(())
    })
    .await;
    // Nobody is given its id.
    let third = seats[1].join(&at).await;
    assert_eq!(third.id, NodeId(3));
    first.sees(&[&first, &third]).await;
}

/// A node's log does not name those yet who are to lead it: it hears them all the same.
#[actix::test]
async fn who_was_away_while_others_joined_follows_those_whom_it_does_not_know() {
    let (seats, nodes) = three().await;
    let [first, second, third] = nodes;
    third.stop().await;
    let more = [Seat::new(), Seat::new()];
    let fourth = more[0].join(&[&seats[0]]).await;
    let fifth = more[1].join(&[&seats[0]]).await;
    first
        .sees(&[&first, &second, &third, &fourth, &fifth])
        .await;
    fifth
        .sees(&[&first, &second, &third, &fourth, &fifth])
        .await;
    first.stop().await;
    second.stop().await;
    // Two of five are left, and the third must help them: by its log, it has never heard of them.
    let third = seats[2]
        .is(RaftActor::spawn(seats[2].config()).unwrap())
        .await;
    third.commit("by those who came later").await;
    third
        .sees(&[&first, &second, &third, &fourth, &fifth])
        .await;
    until("a leader whom its log did not name", async || {
        third
            .status()
            .await
            .leader
            .filter(|leader| *leader > third.id)
    })
    .await;
}

/// The first node's folder is put back as it was when it was alone. By its log it needs nobody to lead.
#[cfg(feature = "rocksdb")]
#[actix::test]
async fn an_old_copy_of_the_first_node_does_not_go_on_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, copy) = (dir.path().join("now"), dir.path().join("then"));
    let seats = [Seat::new(), Seat::new(), Seat::new()];
    let config = |folder: &std::path::Path| seats[0].config().data_dir(folder);
    let first = seats[0]
        .is(RaftActor::lead(config(&folder)).await.unwrap())
        .await;
    first.commit("alone").await;
    first.stop().await;
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([&folder, &copy])
        .status();
    assert!(copied.unwrap().success());
    let first = seats[0]
        .is(RaftActor::lead(config(&folder)).await.unwrap())
        .await;
    let second = seats[1].join(&[&seats[0]]).await;
    let third = seats[2].join(&[&seats[0]]).await;
    first.sees(&[&first, &second, &third]).await;
    first.commit("as three").await;
    first.stop().await;
    second.commit("as two").await;
    let old = seats[0]
        .is(RaftActor::lead(config(&copy)).await.unwrap())
        .await;
    let propose = Propose::new("by the old one").timeout(Duration::from_secs(4));
    match old.actor.send(propose).await.unwrap() {
        Err(_) => {}
        // Then it is one of the three again, and all have it.
        Ok(committed) => {
            until("the others to have it", async || {
                (second.status().await.commit >= committed.index).then_some(())
            })
            .await;
            // The leader's answer may be faster than its log.
            old.sees(&[&old, &second, &third]).await;
        }
    }
    second.commit("and on").await;
}

/// Nobody whom it knows leads, and who leads does not know where it is.
#[actix::test]
async fn who_comes_back_elsewhere_finds_a_leader_that_came_meanwhile() {
    let (seats, nodes) = three().await;
    let [first, second, third] = nodes;
    third.stop().await;
    let seat = Seat::new();
    let fourth = seat.join(&[&seats[0]]).await;
    first.sees(&[&first, &second, &third, &fourth]).await;
    let change = ChangeMembership::new().remove(second.id);
    fourth.actor.send(change).await.unwrap().unwrap();
    let lead = TransferLeadership {
        to: Some(fourth.id),
    };
    until("the fourth to lead", async || {
        fourth.actor.send(lead).await.unwrap().ok();
        (fourth.status().await.role == Role::Leader).then_some(())
    })
    .await;
    let moved = seats[2].moved();
    let third = moved.is(RaftActor::spawn(moved.config()).unwrap()).await;
    third.commit("found").await;
    third.sees(&[&first, &third, &fourth]).await;
}

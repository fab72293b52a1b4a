//! Visits: to nodes, to older ones, and to those who mean no good; and by such.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::codec::forge;
use super::tls::{Pki, Wanted, secured};
use super::{Node, ONE, PATIENCE, TWO, commit, encode, lead, limits, local};
use crate::decode::FrameDecoder;
use crate::handshake::read_frame;
use crate::visit::VISITS_MAX;
use crate::{
    CertificateProblem, DialError, EncodeError, Ending, FrameKind, GetListenerStats, Limits,
    Refusal, Tls, TlsName, VISIT_ANSWER_LEN_MAX, VISIT_LEN_MAX, Visit, VisitError, visit,
};

/// Limits under which nothing takes long.
fn hurried() -> Limits {
    Limits {
        handshake_timeout: Duration::from_millis(300),
        ..limits()
    }
}

/// Asks who is at `address`, in the background.
fn ask(address: SocketAddr, data: Vec<u8>, tls: Option<&Tls>) -> Asked {
    let tls = tls.cloned();
    actix_rt::spawn(async move {
        let address = address.to_string();
        visit(&address, data.into(), tls.as_ref(), &limits()).await
    })
}

type Asked = JoinHandle<Result<Bytes, VisitError>>;

async fn asks(asked: Asked) -> Result<Bytes, VisitError> {
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    answer.expect("every wait ends").unwrap()
}

impl Node {
    async fn visitor(&mut self) -> Visit {
        let visit = tokio::time::timeout(PATIENCE, self.visits.recv()).await;
        visit.expect("a visit comes").expect("the sink lives")
    }
}

fn refusal(answer: Result<Bytes, VisitError>) -> Refusal {
    match answer {
        Err(VisitError::Refused { refusal, .. }) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[actix_rt::test]
async fn a_visitor_is_answered_and_admitted_nowhere() {
    let mut two = Node::new(local(TWO));
    for (question, answer) in [(0, 0), (5, 300), (VISIT_LEN_MAX, VISIT_ANSWER_LEN_MAX)] {
        let asked = ask(two.address, vec![7; question], None);
        let visit = two.visitor().await;
        assert_eq!(visit.data, vec![7; question]);
        assert_eq!((visit.remote.ip(), visit.shown), (two.address.ip(), None));
        visit.reply.send(Ok(vec![8; answer].into())).unwrap();
        assert_eq!(asks(asked).await.unwrap(), vec![8; answer]);
    }
    let stats = two.listener.send(GetListenerStats).await.unwrap();
    let counts = (stats.visits, stats.accepted, stats.refused.len());
    assert_eq!(counts, (3, 0, 0));
    assert!(two.events.try_recv().is_err());
}

#[actix_rt::test]
async fn a_name_leads_there_too() {
    let mut two = Node::new(local(TWO));
    lead("two.example:1", two.address);
    let asked = async { visit("two.example:1", Bytes::new(), None, &limits()).await };
    let answers = async { two.visitor().await.reply.send(Ok(Bytes::new())) };
    let (asked, _) = tokio::join!(asked, answers);
    asked.unwrap();
}

#[actix_rt::test]
async fn why_the_node_refuses_is_told_to_both() {
    let mut two = Node::new(local(TWO));
    let asked = ask(two.address, vec![], None);
    two.visitor()
        .await
        .reply
        .send(Err(Refusal::NoJoins))
        .unwrap();
    assert_eq!(refusal(asks(asked).await), Refusal::NoJoins);
    let turned = two.turned().await;
    assert_eq!(turned, (None, Refusal::NoJoins));
}

#[actix_rt::test]
async fn a_node_that_says_nothing_to_it_ends_it() {
    let mut two = Node::new(local(TWO));
    let asked = ask(two.address, vec![], None);
    drop(two.visitor().await);
    let ended = asks(asked).await;
    let closed = |error: &VisitError| {
        matches!(
            error,
            VisitError::Unreachable(DialError::Handshake { source, .. }) if source.is_reset()
        )
    };
    assert!(ended.as_ref().is_err_and(closed), "{ended:?}");
}

#[actix_rt::test]
async fn a_question_that_is_too_long_is_not_asked_and_not_heard() {
    let mut two = Node::new(local(TWO));
    let unsaid = asks(ask(two.address, vec![7; VISIT_LEN_MAX + 1], None)).await;
    assert!(matches!(
        unsaid,
        Err(VisitError::Question(EncodeError::Payload { .. }))
    ));
    for len in [VISIT_LEN_MAX + 1, 5 << 10, 1 << 20] {
        let mut stream = TcpStream::connect(two.address).await.unwrap();
        let data = vec![7; len];
        let frame = forge(FrameKind::Visit, &[serde_bytes::Bytes::new(&data)]);
        // It may be refused before it has all been said.
        let _ = stream.write_all(&frame).await;
        let (_, reason) = two.turned().await;
        assert!(matches!(reason, Refusal::Malformed { .. }), "{reason}");
    }
    assert!(two.visits.try_recv().is_err());
}

#[actix_rt::test]
async fn what_is_no_visit_is_refused_by_name() {
    let mut two = Node::new(local(TWO));
    let answer = forge(FrameKind::VisitAnswer, &[serde_bytes::Bytes::new(b"")]);
    let bodies = [
        forge(FrameKind::Visit, &[1]),
        forge(FrameKind::Visit, &(1, 2)),
        answer,
    ];
    for frame in bodies {
        let mut stream = TcpStream::connect(two.address).await.unwrap();
        stream.write_all(&frame).await.unwrap();
        let (_, reason) = two.turned().await;
        assert!(matches!(reason, Refusal::Malformed { .. }), "{reason}");
    }
    assert!(two.visits.try_recv().is_err());
}

/// Says that it visits, and nothing more.
async fn visiting(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let frame = forge(FrameKind::Visit, &[serde_bytes::Bytes::new(b"who?")]);
    stream.write_all(&frame).await.unwrap();
    stream
}

async fn read_refusal(stream: &mut TcpStream) -> Refusal {
    let mut decoder = FrameDecoder::new(&Limits::default());
    let frame = tokio::time::timeout(PATIENCE, read_frame(stream, &mut decoder)).await;
    Refusal::decode(&frame.unwrap().unwrap()).unwrap()
}

#[actix_rt::test]
async fn so_many_are_under_way_and_no_peer_waits_for_them() {
    let mut two = Node::new(local(TWO));
    let mut under_way = Vec::new();
    for _ in 0..VISITS_MAX {
        let stream = visiting(two.address).await;
        under_way.push((two.visitor().await, stream));
    }
    let further = asks(ask(two.address, vec![], None)).await;
    assert_eq!(refusal(further), Refusal::TooManyConnections);
    let mut one = Node::new(local(ONE));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    to_two.try_send(encode(&commit(1))).unwrap();
    assert_eq!(two.batch().await.frames, [commit(1)]);
    // What is over makes room.
    let (visit, mut stream) = under_way.remove(0);
    visit.reply.send(Ok(Bytes::new())).unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    drop(stream);
    let next = async {
        loop {
            let asked = ask(two.address, vec![], None);
            tokio::select! {
                visit = two.visits.recv() => return (visit.unwrap(), asked),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    };
    let (visit, asked) = tokio::time::timeout(PATIENCE, next).await.unwrap();
    visit.reply.send(Ok(Bytes::new())).unwrap();
    asks(asked).await.unwrap();
}

#[actix_rt::test]
async fn a_visit_that_is_not_answered_in_time_gives_its_place_back() {
    let mut two = Node::with(local(TWO), hurried());
    let mut under_way = Vec::new();
    for _ in 0..VISITS_MAX {
        let stream = visiting(two.address).await;
        under_way.push((two.visitor().await, stream));
    }
    let since = Instant::now();
    for (_, stream) in &mut under_way {
        assert_eq!(read_refusal(stream).await, Refusal::Slow { limit_ms: 300 });
    }
    assert!(since.elapsed() < Duration::from_secs(5));
    let asked = ask(two.address, vec![], None);
    two.visitor().await.reply.send(Ok(Bytes::new())).unwrap();
    asks(asked).await.unwrap();
    // Too late is as good as never.
    let (late, _) = under_way.remove(0);
    assert!(late.reply.send(Ok(Bytes::new())).is_err());
}

#[actix_rt::test]
async fn who_does_not_read_its_answer_gives_its_place_back() {
    let mut two = Node::with(local(TWO), hurried());
    let mut deaf = Vec::new();
    for _ in 0..2 * VISITS_MAX {
        let stream = visiting(two.address).await;
        let Some(visit) = tokio::time::timeout(PATIENCE, two.visits.recv())
            .await
            .unwrap()
        else {
            panic!("the sink is gone");
        };
        let answer = vec![8; VISIT_ANSWER_LEN_MAX];
        visit.reply.send(Ok(answer.into())).unwrap();
        deaf.push(stream);
        if deaf.len() == VISITS_MAX {
            // All places are taken until their time is over.
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
    }
}

#[actix_rt::test]
async fn strangers_push_out_a_visitor_and_no_peer() {
    let narrow = Limits {
        handshakes_max: 2,
        connections_max: 3,
        ..limits()
    };
    let mut two = Node::with(local(TWO), narrow);
    let mut visitor = visiting(two.address).await;
    let visit = two.visitor().await;
    let mut strangers = Vec::new();
    for _ in 0..4 {
        strangers.push(TcpStream::connect(two.address).await.unwrap());
    }
    assert_eq!(
        read_refusal(&mut visitor).await,
        Refusal::TooManyConnections
    );
    drop((visit, strangers));
}

/// Says `answer` to whoever comes, in place of a node, and closes the connection if it is to be closed.
async fn stands_in(answer: Vec<u8>, closes: bool) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    actix_rt::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = socket.accept().await {
            let mut decoder = FrameDecoder::new(&Limits::default());
            read_frame(&mut stream, &mut decoder).await.unwrap();
            let _ = stream.write_all(&answer).await;
            if !closes {
                kept.push(stream);
            }
        }
    });
    address
}

#[actix_rt::test]
async fn an_older_program_is_told_from_one_that_refuses() {
    let refusal = Refusal::Malformed {
        what: "unknown kind of frame 7".into(),
    };
    let frame = refusal.encode(&limits()).unwrap();
    let address = stands_in(frame.as_bytes().to_vec(), true).await;
    let answer = asks(ask(address, vec![], None)).await;
    assert!(
        matches!(&answer, Err(VisitError::NotUnderstood { address: at }) if *at == address.to_string()),
        "{answer:?}"
    );
}

#[actix_rt::test]
async fn what_is_no_answer_is_none_and_costs_no_memory() {
    let data = vec![8; VISIT_ANSWER_LEN_MAX + 1];
    let too_long = forge(FrameKind::VisitAnswer, &[serde_bytes::Bytes::new(&data)]);
    let mut claims = too_long.clone();
    claims[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    let welcome = local(TWO).introduction(ONE);
    let welcome = welcome.encode(FrameKind::Welcome, &limits()).unwrap();
    for (bytes, name) in [
        (too_long, "payload"),
        (claims, "too_long"),
        (welcome.as_bytes().to_vec(), "out_of_place"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "magic"),
        (forge(FrameKind::VisitAnswer, &(1, 2)), "body"),
    ] {
        let answer = asks(ask(stands_in(bytes, false).await, vec![], None)).await;
        match answer {
            Err(VisitError::Unreachable(DialError::Handshake {
                source: Ending::Malformed(error),
                ..
            })) => assert_eq!(error.name(), name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[actix_rt::test]
async fn who_never_answers_is_not_waited_for() {
    for half in [&b""[..], &b"rAFt\0\x0a\0\0"[..]] {
        let address = stands_in(half.to_vec(), false).await;
        let (address, since) = (address.to_string(), Instant::now());
        let answer = visit(&address, Bytes::new(), None, &hurried()).await;
        let stalled = |error: &VisitError| {
            matches!(
                error,
                VisitError::Unreachable(DialError::Handshake {
                    source: Ending::Stalled(_),
                    ..
                })
            )
        };
        assert!(answer.as_ref().is_err_and(stalled), "{answer:?}");
        assert!(since.elapsed() < Duration::from_secs(5));
    }
    let gone = {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    let nobody = asks(ask(gone, vec![], None)).await;
    assert!(matches!(
        nobody,
        Err(VisitError::Unreachable(DialError::Connect { .. }))
    ));
}

#[actix_rt::test]
async fn tls_tells_which_names_a_visitor_has() {
    let pki = Pki::new();
    // Whom is visited by what name nobody needs to know.
    let mut two = secured(TWO, &pki.tls(TWO));
    let files = pki.give(ONE, &Wanted::of(&["new.example", "*.shop.example"]));
    let tls = Tls::load(files, None).unwrap();
    let asked = ask(two.address, b"join".to_vec(), Some(&tls));
    let visit = two.visitor().await;
    let shown = visit.shown.expect("a certificate");
    let holds = |name: &str| shown.holds(&TlsName::new(name).unwrap());
    assert!(holds("new.example") && holds("till.shop.example"));
    assert!(!holds("node-3") && !holds("shop.example") && !holds("example"));
    visit
        .reply
        .send(Ok(vec![8; VISIT_ANSWER_LEN_MAX].into()))
        .unwrap();
    assert_eq!(asks(asked).await.unwrap().len(), VISIT_ANSWER_LEN_MAX);
}

#[actix_rt::test]
async fn without_a_certificate_of_the_ca_nothing_is_asked_and_nothing_answered() {
    let pki = Pki::new();
    let mut two = secured(TWO, &pki.tls(TWO));
    let foreign = Pki::new().tls(ONE);
    let certificate = |ours| Refusal::Certificate {
        ours,
        problem: CertificateProblem::Chain,
    };
    // The visitor sees it first.
    let answer = asks(ask(two.address, vec![], Some(&foreign))).await;
    assert_eq!(refusal(answer), certificate(false));
    assert_eq!(two.turned().await, (None, certificate(true)));
    let answer = asks(ask(two.address, vec![], None)).await;
    assert_eq!(refusal(answer), Refusal::TlsWanted);
    let plain = Node::new(local(ONE));
    let answer = asks(ask(plain.address, vec![], Some(&foreign))).await;
    assert_eq!(refusal(answer), Refusal::NoTls);
    assert!(two.visits.try_recv().is_err());
}

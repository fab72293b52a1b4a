//! What the screen looks like, at sizes from nothing to plenty.

use raft_actor::{NodeFailure, NodeId, NodeStatus, Phase};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::app::{App, Overlay, OwnState};
use super::view;
use crate::chat::Message;
use crate::logs::Recent;
use crate::status;

fn app() -> App {
    let mut app = App::new("ada".into(), Recent::default());
    app.status = Some(status::example());
    app
}

fn say(app: &mut App, index: u64, from: &str, text: &str) {
    app.history.push(
        index,
        &Message {
            from: from.into(),
            text: text.into(),
        },
    );
}

fn send(app: &mut App, text: &str) {
    use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
    app.on_event(&Event::Paste(text.into()));
    app.on_event(&Event::Key(KeyEvent::new(
        KeyCode::Enter,
        KeyModifiers::NONE,
    )));
}

fn draw(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| {
        (0..width)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
    };
    (0..height).map(|y| row(y).trim_end().to_owned()).collect()
}

fn forming() -> NodeStatus {
    let phase = Phase::Forming {
        waiting_for: vec![(NodeId(2), "connection refused".into())],
    };
    NodeStatus {
        phase,
        leader: None,
        ..status::example()
    }
}

#[test]
fn a_chat_reads_like_one() {
    let mut app = app();
    say(&mut app, 2, "ada", "hello");
    say(
        &mut app,
        13,
        "bob",
        "a longer text that must be broken into two rows, at least",
    );
    send(&mut app, "on its way");
    app.on_event(&crossterm::event::Event::Paste("typing".into()));
    assert_eq!(
        draw(&mut app, 60, 13),
        [
            " ada  follower of node 2  term 3  commit 41  applied 40",
            " ● node 1 (this one)   ● node 2 ★   ○ node 3",
            "",
            "",
            "",
            "",
            "   2  ada  hello",
            "  13  bob  a longer text that must be broken into two rows,",
            "           at least",
            "────────────────────────────────────────────────────────────",
            " … on its way  sending",
            " ada › typing",
            " enter sends · F1 help · ctrl-c quits · PgUp scrolls",
        ]
    );
}

#[test]
fn a_small_terminal_keeps_what_matters() {
    let mut app = app();
    for index in 1..10 {
        say(&mut app, index, "ada", &format!("message number {index}"));
    }
    assert_eq!(
        draw(&mut app, 20, 6),
        [
            " ada  follower of n…",
            " ada  message number",
            "      8",
            " ada  message number",
            "      9",
            " ›",
        ]
        .map(str::to_owned)
    );
}

#[test]
fn who_is_waited_for_is_said() {
    let mut app = app();
    app.status = Some(forming());
    let screen = draw(&mut app, 80, 20).join("\n");
    assert!(screen.contains("waiting for node 2"), "{screen}");
    assert!(screen.contains("node 2: connection refused"), "{screen}");
    app.status = Some(NodeStatus {
        leader: None,
        ..status::example()
    });
    let screen = draw(&mut app, 80, 20).join("\n");
    assert!(screen.contains("waiting for a leader"), "{screen}");
}

#[test]
fn news_below_are_announced() {
    let mut app = app();
    for index in 1..50 {
        say(&mut app, index, "ada", "x");
    }
    draw(&mut app, 80, 20);
    app.history.scroll_up(5, app.page.0, app.page.1);
    assert!(draw(&mut app, 80, 20).join("\n").contains("↓ more below"));
    say(&mut app, 50, "bob", "y");
    assert!(draw(&mut app, 80, 20).join("\n").contains("↓ 1 new below"));
    assert!(draw(&mut app, 30, 5).join("\n").contains("↓ 1 new below"));
}

#[test]
fn own_messages_say_what_became_of_them() {
    let mut app = app();
    for text in ["one", "two", "three"] {
        send(&mut app, text);
    }
    app.settle(1, OwnState::Failed("no leader".into()));
    app.settle(2, OwnState::Unknown("timed out".into()));
    let screen = draw(&mut app, 80, 20).join("\n");
    for expected in [
        "✗ one  not sent: no leader",
        "? two  perhaps sent: timed out",
        "… three  sending",
    ] {
        assert!(screen.contains(expected), "{screen}");
    }
    for _ in 0..5 {
        send(&mut app, "more");
    }
    assert!(draw(&mut app, 80, 20).join("\n").contains("… and 5 more"));
}

#[test]
fn no_size_and_no_content_panics() {
    let mut busy = app();
    for index in 1..40 {
        say(
            &mut busy,
            index,
            "日本語の名前 is long",
            "👩‍👩‍👧 \x1b[2J wide 日本語日本語日本語 e\u{301}",
        );
    }
    say(&mut busy, u64::MAX, "?", &"x".repeat(10_000));
    busy.history.scroll_up(7, 3, 2);
    for number in 1..9 {
        send(&mut busy, "日本語\nand more\x1b");
        if number % 2 == 0 {
            busy.settle(number, OwnState::Failed("because".into()));
        }
    }
    busy.on_event(&crossterm::event::Event::Paste("日本語 ".repeat(50)));
    let mut failed = app();
    failed.status.as_mut().unwrap().phase = Phase::Failed(NodeFailure::Storage("x".repeat(500)));
    let mut waiting = app();
    waiting.status = Some(forming());
    let mut starting = app();
    starting.status = None;
    starting.notice = Some("x".repeat(300));
    let overlays = [
        None,
        Some(Overlay::Help),
        Some(Overlay::Status),
        Some(Overlay::Logs),
    ];
    for app in [
        &mut busy,
        &mut failed,
        &mut waiting,
        &mut starting,
        &mut self::app(),
    ] {
        for overlay in overlays {
            app.overlay = overlay;
            for (width, height) in (0..30).flat_map(|w| (0..16).map(move |h| (w, h))) {
                draw(app, width, height);
            }
            draw(app, 300, 100);
        }
    }
}

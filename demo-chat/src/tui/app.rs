//! What the screen shows and what keys do, without a terminal.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseEventKind};
use raft_actor::NodeStatus;

use super::history::History;
use super::input::Input;
use crate::command::Entry;
use crate::logs::Recent;
use crate::wish::{Said, Wish};

/// How many own messages may wait for their outcome.
const WAITING_MAX: usize = 256;
/// How many messages that went wrong are kept in view.
const TROUBLES_MAX: usize = 20;
const WHEEL_ROWS: usize = 3;

/// What a key asks of the world.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Propose this text; its outcome is told with this number.
    Send(u64, String),
    /// End.
    Quit,
    /// Ask the cluster; what it says is told.
    Ask(Wish),
    /// Draw all of the screen anew.
    Redraw,
}

/// What stands in the place of the history for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overlay {
    Help,
    Status,
    Members,
    Logs,
}

/// An own message that is not history, or not yet.
#[derive(Debug)]
pub(crate) struct Own {
    number: u64,
    pub(crate) text: String,
    pub(crate) state: OwnState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnState {
    Sending,
    /// At this index; it is history as soon as it is delivered.
    Committed(u64),
    /// Certainly not in the log.
    Failed(String),
    /// Perhaps in the log.
    Unknown(String),
}

/// All that is shown.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) history: History,
    pub(crate) input: Input,
    pub(crate) own: Vec<Own>,
    pub(crate) status: Option<NodeStatus>,
    /// The members as the leader knew them when it was last asked.
    pub(crate) members: Vec<String>,
    pub(crate) overlay: Option<Overlay>,
    /// A word on the last key, until the next.
    pub(crate) notice: Option<String>,
    pub(crate) is_ending: bool,
    pub(crate) logs: Recent,
    /// How wide a text and how high the history was when last drawn.
    pub(crate) page: (usize, usize),
    numbers: u64,
}

impl App {
    pub(crate) fn new(name: String, logs: Recent) -> Self {
        Self {
            name,
            history: History::default(),
            input: Input::default(),
            own: Vec::new(),
            status: None,
            members: Vec::new(),
            overlay: None,
            notice: None,
            is_ending: false,
            logs,
            page: (80, 20),
            numbers: 0,
        }
    }

    /// The history has grown: own messages that are in it are not shown twice.
    pub(crate) fn delivered(&mut self) {
        let last = self.history.last_index();
        self.own
            .retain(|own| !matches!(own.state, OwnState::Committed(index) if index <= last));
    }

    /// What became of an own message.
    pub(crate) fn settle(&mut self, number: u64, state: OwnState) {
        if let Some(own) = self.own.iter_mut().find(|own| own.number == number) {
            own.state = state;
        }
        self.delivered();
        let is_trouble =
            |own: &Own| matches!(own.state, OwnState::Failed(_) | OwnState::Unknown(_));
        if self.own.iter().filter(|own| is_trouble(own)).count() > TROUBLES_MAX
            && let Some(oldest) = self.own.iter().position(is_trouble)
        {
            self.own.remove(oldest);
        }
    }

    /// What came of something that the cluster was asked.
    pub(crate) fn told(&mut self, said: Said) {
        match said {
            Said::Members { text, .. } => {
                self.members = text;
                self.overlay = Some(Overlay::Members);
                self.notice = None;
            }
            Said::Line(line) => {
                tracing::info!("{line}");
                self.notice = Some(line);
            }
        }
    }

    /// A key, a paste or the mouse.
    pub(crate) fn on_event(&mut self, event: &Event) -> Option<Action> {
        let (columns, height) = self.page;
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.on_key(*key),
            Event::Paste(text) => {
                if !self.input.insert(text) {
                    self.notice = Some("the paste was too long: it is cut".into());
                }
                None
            }
            Event::Mouse(mouse) => {
                match mouse.kind {
                    MouseEventKind::ScrollUp => self.history.scroll_up(WHEEL_ROWS, columns, height),
                    MouseEventKind::ScrollDown => self.history.scroll_down(WHEEL_ROWS, columns),
                    _ => {}
                }
                None
            }
            _ => None,
        }
    }

    fn on_key(&mut self, key: KeyEvent) -> Option<Action> {
        let (columns, height) = self.page;
        let page = height.saturating_sub(1).max(1);
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        self.notice = None;
        match key.code {
            KeyCode::Char('c') if ctrl => return Some(Action::Quit),
            KeyCode::Char('l') if ctrl => return Some(Action::Redraw),
            KeyCode::F(1) => self.toggle(Overlay::Help),
            KeyCode::F(2) => self.toggle(Overlay::Logs),
            KeyCode::Esc => self.escape(),
            KeyCode::Enter if alt => drop(self.input.insert("\n")),
            KeyCode::Enter => return self.enter(),
            KeyCode::PageUp => self.history.scroll_up(page, columns, height),
            KeyCode::PageDown => self.history.scroll_down(page, columns),
            KeyCode::Home if ctrl => self.history.scroll_up(usize::MAX, columns, height),
            KeyCode::End if ctrl => self.history.follow(),
            KeyCode::Up => self.input.up(),
            KeyCode::Down => self.input.down(),
            KeyCode::Left if ctrl || alt => self.input.word_left(),
            KeyCode::Right if ctrl || alt => self.input.word_right(),
            KeyCode::Left => self.input.left(),
            KeyCode::Right => self.input.right(),
            KeyCode::Home => self.input.home(),
            KeyCode::End => self.input.end(),
            KeyCode::Char('a') if ctrl => self.input.home(),
            KeyCode::Char('e') if ctrl => self.input.end(),
            KeyCode::Char('u') if ctrl => self.input.delete_to_start(),
            KeyCode::Char('k') if ctrl => self.input.delete_to_end(),
            KeyCode::Char('w') if ctrl => self.input.delete_word(),
            // Some terminals send this for ctrl-backspace, others for backspace.
            KeyCode::Char('h') if ctrl => self.input.backspace(),
            KeyCode::Backspace if ctrl || alt => self.input.delete_word(),
            KeyCode::Backspace => self.input.backspace(),
            KeyCode::Delete => self.input.delete(),
            // AltGr comes as both.
            KeyCode::Char(c) if ctrl == alt => drop(self.input.insert(c.encode_utf8(&mut [0; 4]))),
            _ => {}
        }
        None
    }

    fn toggle(&mut self, overlay: Overlay) {
        self.overlay = if self.overlay == Some(overlay) {
            None
        } else {
            Some(overlay)
        };
    }

    /// Leaves whatever is most in the way.
    fn escape(&mut self) {
        let waits = |own: &Own| matches!(own.state, OwnState::Sending | OwnState::Committed(_));
        if self.overlay.take().is_some() {
        } else if !self.own.iter().all(waits) {
            self.own.retain(waits);
        } else {
            self.history.follow();
        }
    }

    fn enter(&mut self) -> Option<Action> {
        if self.is_ending {
            return None;
        }
        let waiting = self
            .own
            .iter()
            .filter(|own| own.state == OwnState::Sending)
            .count();
        let is_message = matches!(Entry::parse(self.input.text()), Entry::Message(_));
        if is_message && waiting >= WAITING_MAX {
            self.notice = Some(format!(
                "{waiting} messages wait for their outcome: not sent"
            ));
            return None;
        }
        let line = self.input.take();
        match Entry::parse(&line) {
            Entry::Message(text) if text.trim().is_empty() => {}
            Entry::Message(text) => {
                self.numbers += 1;
                let (number, text) = (self.numbers, text.to_owned());
                self.own.push(Own {
                    number,
                    text: text.clone(),
                    state: OwnState::Sending,
                });
                self.overlay = None;
                self.history.follow();
                return Some(Action::Send(number, text));
            }
            Entry::Quit => return Some(Action::Quit),
            Entry::Status => self.toggle(Overlay::Status),
            Entry::Help => self.toggle(Overlay::Help),
            Entry::Wish(wish) => {
                self.notice = Some(format!("{wish}: asking…"));
                return Some(Action::Ask(wish));
            }
            Entry::Unknown(line) => {
                let line = line.split_whitespace().next().unwrap_or("/");
                self.notice = Some(format!("there is no {line}: /help, or //… to say it"));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;

    fn app() -> App {
        App::new("ada".into(), Recent::default())
    }

    fn press(app: &mut App, code: KeyCode, modifiers: KeyModifiers) -> Option<Action> {
        app.on_event(&Event::Key(KeyEvent::new(code, modifiers)))
    }

    fn type_line(app: &mut App, line: &str) -> Option<Action> {
        for c in line.chars() {
            press(app, KeyCode::Char(c), KeyModifiers::NONE);
        }
        press(app, KeyCode::Enter, KeyModifiers::NONE)
    }

    #[test]
    fn lines_are_sent_and_commands_are_obeyed() {
        let mut app = app();
        assert_eq!(
            type_line(&mut app, "hi"),
            Some(Action::Send(1, "hi".into()))
        );
        assert_eq!(
            type_line(&mut app, "//hi"),
            Some(Action::Send(2, "/hi".into()))
        );
        assert_eq!(type_line(&mut app, "  "), None);
        assert_eq!(type_line(&mut app, "/status"), None);
        assert_eq!(app.overlay, Some(Overlay::Status));
        assert_eq!(type_line(&mut app, "/hepl me"), None);
        assert!(app.notice.as_ref().unwrap().contains("/hepl:"));
        assert_eq!(
            type_line(&mut app, "/members"),
            Some(Action::Ask(Wish::Members))
        );
        let text = vec!["node 1".to_owned()];
        let json = String::new();
        app.told(Said::Members { json, text });
        assert_eq!(app.overlay, Some(Overlay::Members));
        app.told(Said::Line("done /leave: gone".into()));
        assert_eq!(app.notice.as_deref(), Some("done /leave: gone"));
        assert_eq!(type_line(&mut app, "/quit"), Some(Action::Quit));
        assert_eq!(
            press(&mut app, KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Action::Quit)
        );
    }

    #[test]
    fn an_own_message_is_shown_until_it_is_history() {
        let mut app = app();
        type_line(&mut app, "one");
        type_line(&mut app, "two");
        app.settle(1, OwnState::Committed(7));
        assert_eq!(app.own.len(), 2);
        app.history.push(
            7,
            &Message {
                from: "ada".into(),
                text: "one".into(),
            },
        );
        app.delivered();
        assert_eq!(app.own.len(), 1);
        app.history.push(
            8,
            &Message {
                from: "ada".into(),
                text: "two".into(),
            },
        );
        app.settle(2, OwnState::Committed(8));
        assert!(app.own.is_empty());
    }

    #[test]
    fn what_went_wrong_stays_until_escape_and_is_bounded() {
        let mut app = app();
        for number in 1..100 {
            type_line(&mut app, "x");
            app.settle(number, OwnState::Unknown("why".into()));
        }
        type_line(&mut app, "y");
        assert_eq!(app.own.len(), TROUBLES_MAX + 1);
        press(&mut app, KeyCode::F(2), KeyModifiers::NONE);
        press(&mut app, KeyCode::Esc, KeyModifiers::NONE);
        assert_eq!((app.own.len(), app.overlay), (TROUBLES_MAX + 1, None));
        press(&mut app, KeyCode::Esc, KeyModifiers::NONE);
        assert_eq!(app.own.len(), 1);
    }

    #[test]
    fn too_many_waiting_messages_are_not_sent_and_not_lost() {
        let mut app = app();
        for _ in 0..WAITING_MAX {
            assert!(type_line(&mut app, "x").is_some());
        }
        assert_eq!(type_line(&mut app, "one more"), None);
        assert_eq!(app.input.text(), "one more");
    }

    #[test]
    fn every_key_is_harmless() {
        use KeyCode::*;
        let mut app = app();
        let codes = [
            Up, Down, Left, Right, Home, End, PageUp, PageDown, Backspace, Delete, Esc, Tab,
        ];
        let codes = codes
            .into_iter()
            .chain(('a'..='z').map(Char))
            .chain((1..13).map(F));
        for code in codes {
            for modifiers in [KeyModifiers::NONE, KeyModifiers::CONTROL, KeyModifiers::ALT] {
                press(&mut app, code, modifiers);
            }
        }
    }
}

//! Draws the screen: who and where this node is, who else, what was said, what is on its way, what is typed.
//!
//! On a low or narrow terminal the parts that can be missed go first; nothing is drawn outside of it.

use raft_actor::{NodeStatus, Phase, Role};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::app::{App, Overlay, Own, OwnState};
use super::wrap;
use crate::chat::NOBODY;
use crate::status;

const BAR: Style = Style::new().fg(Color::Indexed(252)).bg(Color::Indexed(236));
const DIM: Style = Style::new().fg(Color::Indexed(244));
const GOOD: Style = Style::new().fg(Color::Indexed(71));
const WARN: Style = Style::new().fg(Color::Indexed(179));
const BAD: Style = Style::new().fg(Color::Indexed(167));
const PLAIN: Style = Style::new();
/// Colours that can be read on dark and on light, and told from one another.
const NAME_COLOURS: [u8; 12] = [38, 107, 71, 169, 178, 69, 141, 203, 37, 208, 173, 132];

const OWN_ROWS_MAX: usize = 4;
const NAME_WIDTH_MAX: usize = 16;
const HINTS: [&str; 6] = [
    "enter sends",
    "F1 help",
    "ctrl-c quits",
    "PgUp scrolls",
    "F2 logs",
    "↑ earlier lines",
];
const HELP: &str = "\
enter          send                 alt-enter      new line
↑ ↓            lines sent before    PgUp PgDn      scroll, as the wheel does
ctrl-u ctrl-k  delete to start/end  ctrl-home/end  first, newest message
ctrl-w         delete a word        esc            close, dismiss, follow
F1 /help       this                 F2             logs
/status        the node in full     ctrl-c /quit   end
/members       who belongs here     /leave         go, for good
/remove ID     that one goes        /promote /demote ID
/transfer [ID] who leads            /priority ID N, /add HOST:PORT
//text         say /text            ctrl-l         draw anew

Every message has its place in a log that all nodes agree on: the number on the
left. What is not in the history yet stands below it, with what became of it.
Shift and the mouse select text, where the terminal can do that.";

/// The colour of a name, the same on every screen.
fn name_style(name: &str) -> Style {
    if name == NOBODY {
        return DIM;
    }
    // FNV-1a.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Its low bits are its weak ones.
    let colour = NAME_COLOURS[((hash >> 32) % NAME_COLOURS.len() as u64) as usize];
    Style::new()
        .fg(Color::Indexed(colour))
        .add_modifier(Modifier::BOLD)
}

/// Draws all of it.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    let height = usize::from(area.height);
    let own = own_rows(app, usize::from(area.width));
    let shown_if = |enough: usize| u16::from(height >= enough);
    let [header, members, history, rule, waiting, input, hints] = Layout::vertical([
        Constraint::Length(shown_if(3)),
        Constraint::Length(shown_if(8)),
        Constraint::Fill(1),
        Constraint::Length(shown_if(7)),
        Constraint::Length(own.len().min(height / 3) as u16),
        Constraint::Length(shown_if(1)),
        Constraint::Length(shown_if(12)),
    ])
    .areas(area);

    frame.render_widget(
        Paragraph::new(header_line(app, header.width)).style(BAR),
        header,
    );
    if let Some(status) = &app.status {
        frame.render_widget(Paragraph::new(members_line(status, members.width)), members);
    }
    match app.overlay {
        None => draw_history(frame, app, history),
        Some(overlay) => draw_overlay(frame, app, overlay, history),
    }
    let over_rule = if rule.height > 0 {
        rule
    } else {
        last_row(history)
    };
    if rule.height > 0 {
        let line = "─".repeat(usize::from(rule.width));
        frame.render_widget(Paragraph::new(line).style(DIM), rule);
    }
    draw_unseen(frame, app, over_rule);
    frame.render_widget(Paragraph::new(own), waiting);
    draw_input(frame, app, input);
    let hint = match &app.notice {
        Some(notice) => Line::styled(format!(" {notice}"), WARN),
        None => Line::styled(hints_that_fit(usize::from(hints.width)), DIM),
    };
    let hints = if hints.height == 0 && app.notice.is_some() {
        last_row(history)
    } else {
        hints
    };
    frame.render_widget(Paragraph::new(hint), hints);
}

/// The first hints, as many as there is room for.
fn hints_that_fit(columns: usize) -> String {
    let mut line = String::new();
    for hint in HINTS {
        let between = if line.is_empty() { " " } else { " · " };
        if wrap::width(&line) + wrap::width(between) + wrap::width(hint) > columns {
            break;
        }
        line = line + between + hint;
    }
    line
}

fn last_row(area: Rect) -> Rect {
    let row = Rect {
        y: area.bottom().saturating_sub(1),
        height: area.height.min(1),
        ..area
    };
    row.intersection(area)
}

/// Who this is, and where: as much of it as there is room for, the most telling first.
fn header_line(app: &App, columns: u16) -> Line<'static> {
    let columns = usize::from(columns);
    let name = wrap::cut(&app.name, columns.saturating_sub(2));
    let mut spans = vec![
        Span::raw(" "),
        Span::styled(name.clone(), name_style(&app.name)),
    ];
    let mut used = 1 + wrap::width(&name);
    for (text, style) in facts(app) {
        let text = format!("  {text}");
        if used + wrap::width(&text) < columns {
            used += wrap::width(&text);
            spans.push(Span::styled(text, style));
        } else if spans.len() == 2 {
            spans.push(Span::styled(
                wrap::cut(&text, columns.saturating_sub(used)),
                style,
            ));
            break;
        }
    }
    Line::from(spans)
}

fn facts(app: &App) -> Vec<(String, Style)> {
    let Some(status) = &app.status else {
        return vec![("starting".into(), WARN)];
    };
    let mut facts = Vec::new();
    match (&status.phase, status.role, status.leader) {
        _ if app.is_ending => facts.push(("ending…".into(), WARN)),
        (Phase::Forming { waiting_for }, ..) => {
            let ids: Vec<_> = waiting_for.iter().map(|(id, _)| id.to_string()).collect();
            let nodes = if ids.len() == 1 { "node" } else { "nodes" };
            facts.push((format!("waiting for {nodes} {}", ids.join(", ")), WARN));
        }
        (Phase::Failed(failure), ..) => facts.push((format!("failed: {failure}"), BAD)),
        (Phase::Leaving, ..) => facts.push(("leaving…".into(), WARN)),
        (Phase::ShuttingDown, ..) => facts.push(("ending…".into(), WARN)),
        (Phase::Running, Role::Leader, _) => facts.push(("★ leader".into(), GOOD)),
        (Phase::Running, _, Some(leader)) => {
            facts.push((format!("follower of node {leader}"), PLAIN))
        }
        (Phase::Running, Role::Follower, None) => facts.push(("waiting for a leader".into(), WARN)),
        (Phase::Running, role, None) => facts.push((format!("{role}, no leader"), WARN)),
    }
    facts.push((format!("term {}", status.term), DIM));
    facts.push((format!("commit {}", status.commit), DIM));
    facts.push((format!("applied {}", status.applied), DIM));
    facts
}

/// All nodes, with as much on each as there is room for.
fn members_line(status: &NodeStatus, columns: u16) -> Line<'static> {
    let line = |detail: u8| {
        let mut spans = vec![Span::raw(" ")];
        for member in &status.members {
            let (dot, style) = if member.connected {
                ("●", GOOD)
            } else {
                ("○", BAD)
            };
            spans.push(Span::styled(dot, style));
            let word = if detail > 0 { " node " } else { "" };
            spans.push(Span::raw(format!("{word}{}", member.id)));
            if detail > 1 {
                spans.push(Span::styled(format!(" {}", member.address), DIM));
            }
            if status.leader == Some(member.id) {
                spans.push(Span::styled(if detail > 0 { " ★" } else { "★" }, WARN));
            }
            if member.id == status.id && detail > 0 {
                spans.push(Span::styled(" (this one)", DIM));
            }
            spans.push(Span::raw(if detail > 0 { "   " } else { " " }));
        }
        Line::from(spans)
    };
    let fits = |line: &Line<'_>| line.width() <= usize::from(columns) + 3;
    [2, 1]
        .into_iter()
        .map(line)
        .find(fits)
        .unwrap_or_else(|| line(0))
}

fn draw_history(frame: &mut Frame<'_>, app: &mut App, area: Rect) {
    if app.history.is_empty() {
        return draw_centred(frame, area, why_empty(app));
    }
    let width = usize::from(area.width);
    let digits = app.history.last_index().to_string().len().max(3);
    let number_width = if width >= 50 { digits + 2 } else { 0 };
    let name_width = app
        .history
        .name_width()
        .min(NAME_WIDTH_MAX)
        .min(width / 4)
        .max(1);
    let text_width = width.saturating_sub(number_width + name_width + 3).max(1);
    app.page = (text_width, usize::from(area.height));

    let rows = app.history.visible(text_width, usize::from(area.height));
    // The newest stand at the bottom, where the eyes are.
    let above = usize::from(area.height).saturating_sub(rows.len());
    let mut lines = vec![Line::default(); above];
    for row in rows {
        let mut spans = Vec::new();
        if row.is_first {
            if number_width > 0 {
                spans.push(Span::styled(format!(" {:>digits$} ", row.entry.index), DIM));
            }
            let name = wrap::cut(&row.entry.from, name_width);
            let blanks = name_width - wrap::width(&name) + 1;
            spans.push(Span::raw(" ".repeat(blanks)));
            spans.push(Span::styled(name, name_style(&row.entry.from)));
            spans.push(Span::raw("  "));
        } else {
            spans.push(Span::raw(" ".repeat(number_width + name_width + 3)));
        }
        let is_foreign = row.entry.from == NOBODY;
        spans.push(Span::styled(row.text, if is_foreign { DIM } else { PLAIN }));
        lines.push(Line::from(spans));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// What to say while there is no history.
fn why_empty(app: &App) -> Vec<(String, Style)> {
    let Some(status) = &app.status else {
        return Vec::new();
    };
    match &status.phase {
        Phase::Forming { waiting_for } => {
            let mut lines = vec![
                ("The chat begins when all nodes have met.".to_owned(), PLAIN),
                (String::new(), PLAIN),
            ];
            let waits = |(id, why): &(_, String)| {
                (format!("node {id}: {}", crate::chat::one_line(why)), WARN)
            };
            lines.extend(waiting_for.iter().map(waits));
            lines
        }
        Phase::Running if status.leader.is_none() => vec![
            ("Waiting for a leader.".into(), WARN),
            (
                "Only a majority knows what was said: the history is shown once there is one."
                    .into(),
                DIM,
            ),
        ],
        Phase::Running if status.applied.0 < status.last.index.0 => {
            vec![("Reading the history.".into(), DIM)]
        }
        Phase::Running => vec![("Nothing was said yet.".into(), DIM)],
        Phase::Leaving | Phase::ShuttingDown | Phase::Failed(_) => Vec::new(),
    }
}

fn draw_centred(frame: &mut Frame<'_>, area: Rect, lines: Vec<(String, Style)>) {
    let columns = usize::from(area.width).saturating_sub(2);
    let rows: Vec<Line<'_>> = lines
        .iter()
        .flat_map(|(text, style)| {
            let rows = wrap::wrap(text, columns).into_iter();
            rows.map(|row| Line::styled(row, *style).centered())
        })
        .collect();
    let above = usize::from(area.height).saturating_sub(rows.len()) / 2;
    let area = Rect {
        y: area.y + above as u16,
        height: area.height - above as u16,
        ..area
    };
    frame.render_widget(Paragraph::new(rows), area);
}

fn draw_overlay(frame: &mut Frame<'_>, app: &App, overlay: Overlay, area: Rect) {
    let columns = usize::from(area.width).saturating_sub(2);
    let height = usize::from(area.height).saturating_sub(1);
    let (title, lines) = match overlay {
        Overlay::Help => ("help", HELP.lines().map(str::to_owned).collect()),
        Overlay::Status => (
            "status",
            app.status.as_ref().map(status::text).unwrap_or_default(),
        ),
        Overlay::Members => ("members", app.members.clone()),
        Overlay::Logs => ("logs", app.logs.last(height)),
    };
    let mut rows = Vec::new();
    for line in lines {
        rows.extend(wrap::wrap(&crate::chat::one_line(&line), columns));
    }
    // The newest logs matter most; of the rest the beginning does.
    let skip = if overlay == Overlay::Logs {
        rows.len().saturating_sub(height)
    } else {
        0
    };
    let title = Line::styled(format!(" {title} · esc closes"), WARN);
    let rows = rows
        .into_iter()
        .skip(skip)
        .map(|row| Line::raw(format!(" {row}")));
    let lines: Vec<Line<'_>> = std::iter::once(title).chain(rows).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// Says that the newest messages are out of view, and how many came meanwhile.
fn draw_unseen(frame: &mut Frame<'_>, app: &App, row: Rect) {
    let text = match app.history.unseen() {
        Some(0) => " ↓ more below ".to_owned(),
        Some(new) => format!(" ↓ {new} new below "),
        None => return,
    };
    let width = (wrap::width(&text) as u16).min(row.width);
    let x = row.right().saturating_sub(width + 1).max(row.x);
    let area = Rect { x, width, ..row }.intersection(row);
    let style = WARN.add_modifier(Modifier::REVERSED);
    frame.render_widget(Paragraph::new(text).style(style), area);
}

/// Own messages that are not history: the last few.
fn own_rows(app: &App, columns: usize) -> Vec<Line<'static>> {
    let mut rows = Vec::new();
    let hidden = app.own.len().saturating_sub(OWN_ROWS_MAX);
    if hidden > 0 {
        rows.push(Line::styled(format!(" … and {} more", hidden + 1), DIM));
    }
    let shown = if hidden > 0 {
        OWN_ROWS_MAX - 1
    } else {
        app.own.len()
    };
    for Own { text, state, .. } in &app.own[app.own.len() - shown..] {
        let (mark, what, style) = match state {
            OwnState::Sending | OwnState::Committed(_) => (" … ", "sending".to_owned(), DIM),
            OwnState::Failed(reason) => (" ✗ ", format!("not sent: {reason}"), BAD),
            OwnState::Unknown(reason) => (" ? ", format!("perhaps sent: {reason}"), WARN),
        };
        // Of a long text enough to know it by, then what became of it.
        let text: String = text.chars().take(columns).collect();
        let text = wrap::printable(&text).replace('\n', "⏎");
        let room = columns
            .saturating_sub(wrap::width(mark) + wrap::width(&what) + 2)
            .max(columns / 4);
        rows.push(Line::from(vec![
            Span::styled(mark, style),
            Span::styled(wrap::cut(&text, room), DIM.add_modifier(Modifier::ITALIC)),
            Span::styled(format!("  {what}"), style),
        ]));
    }
    rows
}

fn draw_input(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let columns = usize::from(area.width);
    let name = if columns >= 40 {
        format!(" {}", app.name)
    } else {
        String::new()
    };
    let prompt = Span::styled(name.clone(), name_style(&app.name));
    let prompt_width = wrap::width(&name) + 3;
    let room = columns.saturating_sub(prompt_width + 1).max(1);
    let (text, cursor) = app.input.window(room);
    let line = Line::from(vec![prompt, Span::styled(" › ", DIM), Span::raw(text)]);
    frame.render_widget(Paragraph::new(line), area);
    let x = area.x.saturating_add((prompt_width + cursor) as u16);
    if !area.is_empty() && !app.is_ending {
        frame.set_cursor_position(Position::new(x.min(area.right() - 1), area.y));
    }
}

//! stub
use crate::args::Settings; use crate::node::Exit;
pub(crate) async fn run(_s: Settings) -> Exit { Exit::clean() }

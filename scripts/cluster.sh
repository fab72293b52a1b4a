# Sourced by `demo` and `chat`: a cluster of three demo-chat nodes on this machine. PORT= is the first node's port.

first_port=${PORT:-7001}
if ! [[ $first_port =~ ^[0-9]+$ ]] || ((first_port < 1 || first_port > 65533)); then
  die "PORT=$first_port is not a port with two more behind it"
fi
peers="1=127.0.0.1:$first_port,2=127.0.0.1:$((first_port + 1)),3=127.0.0.1:$((first_port + 2))"
demo_chat=${PROGRAMS:-$target/release}/demo-chat
[[ -x $demo_chat ]] || die "$demo_chat is not built; make build does it"

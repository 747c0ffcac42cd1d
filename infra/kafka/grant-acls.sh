#!/usr/bin/env bash
# Grants what each role of Vecraft DB needs on a Kafka that has an authorizer, with Kafka's own kafka-acls. docs/kafka.md explains.
# What is granted already stays as it is, so it may run again with more principals.
set -euo pipefail

usage() {
    cat <<'TEXT'
grant-acls.sh --bootstrap-server ADDRESS [option]... ROLE PRINCIPAL [ROLE PRINCIPAL]...

  --command-config FILE  how kafka-acls connects, in Java's terms
  --source TOPIC         a topic of others that nodes read as a source of the ingest; as often as there are such topics
  --prefix PREFIX        first part of the topics' names, as --topic-prefix of the nodes (default: vecraft)
  --tool PATH            Kafka's tool (default: kafka-acls.sh)

roles, each as often as there are principals, such as User:left:
  --node       vecraft serve
  --trimmer    vecraft serve that cuts the log, beside --node
  --operator   vecraft topics
  --reader     vecraft journal
  --producer   writes to the ingest topic
  --dashboard  reads the groups and their lag
TEXT
}

fail() {
    echo "grant-acls.sh: $1" >&2
    exit 2
}

prefix=vecraft tool=kafka-acls.sh bootstrap='' config=() sources=() roles=()
while (($#)); do
    case $1 in
        --help) usage; exit 0 ;;
        --bootstrap-server | --command-config | --source | --prefix | --tool | --node | --trimmer | --operator | --reader | --producer | --dashboard)
            (($# > 1)) || fail "$1 needs a value" ;;
        *) fail "$1 is no option, see --help" ;;
    esac
    case $1 in
        --bootstrap-server) bootstrap=$2 ;;
        --command-config) config=(--command-config "$2") ;;
        --source) sources+=(--topic "$2") ;;
        --prefix) prefix=$2 ;;
        --tool) tool=$2 ;;
        *) roles+=("${1#--}" "$2") ;;
    esac
    shift 2
done
[[ -n $bootstrap ]] || fail "--bootstrap-server is missing"
((${#roles[@]})) || fail "no role is given, such as --node User:left"

journal=() topics=()
for name in tier0 tier1 tier2 tier3 system; do journal+=(--topic "$prefix.$name"); done
topics=("${journal[@]}" --topic "$prefix.ingest" --topic "$prefix.dead-letters")

allow() { # principal, operations separated by commas, resources...
    local principal=$1 operation operations=()
    for operation in ${2//,/ }; do operations+=(--operation "$operation"); done
    "$tool" --bootstrap-server "$bootstrap" ${config[@]+"${config[@]}"} --add --allow-principal "$principal" "${operations[@]}" "${@:3}"
}

grant() { # role, principal
    case $1 in
        node)
            allow "$2" Read,Write,DescribeConfigs "${topics[@]}"
            allow "$2" Delete --topic "$prefix.dead-letters" # the right to cut it, where letters are too old
            ((${#sources[@]} == 0)) || allow "$2" Read "${sources[@]}"
            allow "$2" Read --group "$prefix.ingest"
            allow "$2" Read --group "$prefix.ingest." --resource-pattern-type prefixed # and the name of a source
            allow "$2" Read --group "$prefix.replayer." --resource-pattern-type prefixed # and the name of the node
            allow "$2" Read --group "$prefix.subscription." --resource-pattern-type prefixed # and the name of a subscription
            ;;
        trimmer)
            for name in tier0 tier1 tier2 tier3; do allow "$2" Delete --topic "$prefix.$name"; done
            allow "$2" Describe --group "$prefix.replayer." --resource-pattern-type prefixed # to see how far the other nodes are
            ;;
        operator) allow "$2" Create,Describe,DescribeConfigs "${topics[@]}" ;;
        reader)
            allow "$2" Read "${journal[@]}"
            allow "$2" Describe --group "$prefix.reader"
            ;;
        producer) allow "$2" Write --topic "$prefix.ingest" ;;
        dashboard)
            allow "$2" Describe "${topics[@]}" --group "$prefix.ingest"
            allow "$2" Describe --group "$prefix.ingest." --resource-pattern-type prefixed
            allow "$2" Describe --group "$prefix.replayer." --resource-pattern-type prefixed
            allow "$2" Describe --group "$prefix.subscription." --resource-pattern-type prefixed
            ;;
    esac
}

for ((at = 0; at < ${#roles[@]}; at += 2)); do
    grant "${roles[at]}" "${roles[at + 1]}"
done

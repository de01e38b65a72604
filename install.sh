#!/bin/bash
# Makes this machine a server or a node of a Windlass cluster, or undoes that. Nothing is fetched but packages of the distribution
# (containerd, runc, nftables) where they are missing.
#
#   ./install.sh server [--set KEY=VALUE]...
#   ./install.sh agent HOST:6443 --token TOKEN [--discovery-token-ca-cert-hash HASH] [--set KEY=VALUE]...
#   ./install.sh --uninstall [--keep-packages]
#   ./install.sh --refresh          what this release needs of a machine that is one already: `windlass upgrade` and the .deb call it
#
# The same settings are taken from WINDLASS_SERVER, WINDLASS_TOKEN and WINDLASS_CA_CERT_HASH. Settings are in /etc/windlass/config.yaml
# (flags of `windlass server` and `windlass agent` without their dashes); a run changes those it is given and keeps the others.
#
# It may be run again at any time, and after an interrupted run: every change is written down in $RECORD before it is made, with what was
# there before, and --uninstall goes through that list backwards.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

BIN=/usr/local/bin LIB=/usr/local/lib/windlass
ETC=/etc/windlass
STATE=$ETC/install
RECORD=$STATE/record
BEFORE=$STATE/before
PAUSE=localhost/windlass-pause:1
CONTAINERD=/etc/containerd/config.toml
IMPORT='imports = ["/etc/containerd/conf.d/*.toml"]'
DROP_IN=/etc/containerd/conf.d/50-windlass.toml
MODULES=(overlay br_netfilter nf_conntrack)
# What the node needs, then what the running programs set themselves: those are written down, too.
SYSCTLS=(net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1)
AT_LEAST=(fs.inotify.max_user_instances=8192 fs.inotify.max_user_watches=524288)
SET_LATER=(net.ipv6.conf.all.forwarding net.netfilter.nf_conntrack_max net.netfilter.nf_conntrack_tcp_timeout_established
    net.netfilter.nf_conntrack_tcp_timeout_close_wait net.ipv4.conf.all.route_localnet)

say() { echo "windlass: $*"; }
die() {
    echo "windlass: $1" >&2
    [ -z "${2:-}" ] || echo "  remedy: $2" >&2
    exit 1
}
usage() { sed -n '2,/^set -euo/ { /^#/ s/^# \{0,1\}//p }' "$0"; }

# --- what is written down -------------------------------------------------------------------------------------------------------------

# record WORDS...: one line, once, on disk before the change is made
record() {
    grep -qxF "$*" "$RECORD" 2>/dev/null && return
    echo "$*" >>"$RECORD"
    sync -d "$RECORD" 2>/dev/null || sync
}
recorded() { grep -qE "^(made|changed) $(printf %s "$1" | sed 's/[][\.*^$+?(){}|]/\\&/g')\$" "$RECORD" 2>/dev/null; }

# directory DIR: made with those above it
directory() {
    local missing=() dir=$1
    while [ ! -d "$dir" ]; do
        missing=("$dir" "${missing[@]}")
        dir=$(dirname "$dir")
    done
    for dir in "${missing[@]}"; do
        record dir "$dir"
        mkdir -p "$dir"
    done
}

# put FILE MODE [UNIT] <content: replaces FILE in one step where it differs; what was there before us is kept aside. UNIT is then due for a
# restart, in this run or, where this one is cut short, in the next.
put() {
    local file=$1 mode=$2 unit=${3:-}
    cat >"$STATE/content"
    ! cmp -s "$STATE/content" "$file" || return 0
    directory "$(dirname "$file")"
    if ! recorded "$file"; then
        if [ -e "$file" ] || [ -L "$file" ]; then
            mkdir -p "$BEFORE$(dirname "$file")"
            rm -rf "$BEFORE$file.new"
            cp -a "$file" "$BEFORE$file.new"
            mv -T "$BEFORE$file.new" "$BEFORE$file"
            record changed "$file"
        else
            record made "$file"
        fi
    fi
    [ -z "$unit" ] || touch "$STATE/due.$unit"
    install -m "$mode" "$STATE/content" "$file.windlass-new"
    sync -d "$file.windlass-new" 2>/dev/null || sync
    mv -T "$file.windlass-new" "$file"
    label "$file"
}

# label FILE...: what SELinux calls files in these places, however they came there
label() { [ ! -e /sys/fs/selinux/enforce ] || restorecon "$@" 2>/dev/null || true; }

# --- steps ----------------------------------------------------------------------------------------------------------------------------

# The operator has another container runtime, which is theirs to install and to configure.
other_runtime() {
    local pair key=container-runtime-endpoint value=''
    value=$(sed -n "s/^$key: *//p" "$ETC/config.yaml" 2>/dev/null | tail -n 1) || true
    for pair in ${SET[@]+"${SET[@]}"}; do [ "${pair%%=*}" != "$key" ] || value=${pair#*=}; done
    [ -n "$value" ] && [[ $value != *containerd* ]]
}

needed_packages() {
    if ! other_runtime; then
        command -v containerd >/dev/null || echo containerd
        command -v runc >/dev/null || command -v crun >/dev/null || echo runc
    fi
    command -v nft >/dev/null || echo nftables
    command -v modprobe >/dev/null || echo kmod
}

# Waits for others that install; a file that is there stays as it is.
APT=(-o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold)

# What a killed run has left half installed: until it is finished, apt-get does nothing else. Programs that are there say nothing of that.
finish_packages() {
    grep -qs '^package ' "$RECORD" && command -v apt-get >/dev/null || return 0
    dpkg --force-confold --configure -a </dev/null >/dev/null || true
    [ -z "$(dpkg --audit 2>/dev/null)" ] || apt-get install -y -qq -f "${APT[@]}" </dev/null >/dev/null || true
}

# What dnf's repositories call these: containerd is Fedora's, or containerd.io of Docker's repository, which has runc inside.
by_dnf() {
    local package has=''
    for package in "$@"; do
        case $package in
        containerd)
            if ! dnf -q list --available containerd >/dev/null 2>&1 && dnf -q list --available containerd.io >/dev/null 2>&1; then
                package=containerd.io has=runc
            fi ;;
        esac
        [ "$package" = "$has" ] || echo "$package"
    done
}

packages() {
    local wanted=() new
    finish_packages
    mapfile -t wanted < <(needed_packages)
    [ ${#wanted[@]} -gt 0 ] || return 0
    say "installing ${wanted[*]}"
    for dir in /var/lib/containerd /run/containerd /opt/containerd /etc/containerd; do
        [ -e "$dir" ] || record tree "$dir"
    done
    [ ! -f "$CONTAINERD" ] || recorded "$CONTAINERD" || grep -q '^package ' "$RECORD" || record kept "$CONTAINERD"
    if command -v apt-get >/dev/null; then
        apt-get -s install --no-install-recommends "${wanted[@]}" >/dev/null 2>&1 || apt-get update -qq || true
        # With all that comes along, so that all of it can go again.
        new=$(apt-get -s install --no-install-recommends "${wanted[@]}" | sed -n 's/^Inst \([^ ]*\) (.*/\1/p') ||
            die "apt-get finds no ${wanted[*]}" "add a package source that has them, or install them by hand, and run this again"
        for package in $new; do record package "$package"; done
        apt-get install -y -qq --no-install-recommends "${APT[@]}" "${wanted[@]}" </dev/null
    elif command -v dnf >/dev/null; then
        mapfile -t wanted < <(by_dnf "${wanted[@]}")
        dnf install -y -q --downloadonly "${wanted[@]}" </dev/null ||
            die "dnf finds no ${wanted[*]}" "enable a repository that has them (on Red Hat's family, containerd is not in the base ones: Docker's has containerd.io), and run this again"
        for package in "${wanted[@]}"; do record package "$package"; done
        dnf install -y -q "${wanted[@]}" </dev/null
    else
        die "this distribution has neither apt-get nor dnf" "install ${wanted[*]} by hand and run this again"
    fi
}

# Places of a release's files on this machine, in its list and in its units.
PLACED=(-e "s|@BIN@|$BIN|g" -e "s|@LIB@|$LIB|g" -e "s|@UNITS@|/etc/systemd/system|g")
listed() { sed -e '/^#/d' -e '/^ *$/d' "${PLACED[@]}" "$1"; }

# What a release puts on a machine is what its list says; a .deb has put it in place already.
programs() {
    local from to mode unit new
    [ -n "$DIST" ] || return 0
    (cd "$DIST" && sha256sum -c --quiet SHA256SUMS) || die "the release is damaged: checksums differ" "unpack it again"
    new=$(listed "$DIST/FILES" | awk '{print $2}')
    # What only the release before had goes, by its list, which is there until that is done.
    if [ -f "$LIB/FILES" ]; then
        while read -r from to mode unit; do
            grep -qxF "$to" <<<"$new" || rm -f "$to"
        done < <(listed "$LIB/FILES")
    fi
    while read -r from to mode unit; do
        case $from in systemd/*) sed "${PLACED[@]}" "$DIST/$from" | put "$to" "$mode" "$unit" ;; *) put "$to" "$mode" "$unit" <"$DIST/$from" ;; esac
    done < <(listed "$DIST/FILES")
    # This run is what counts, not an upgrade that was cut short before it.
    rm -rf "$BIN"/.windlass-upgrade*
}

# Directories that the running programs, containerd as soon as its package is there, would make otherwise, so that they go again with the rest.
places() {
    local dir
    for dir in /etc/cni/net.d /opt/cni/bin /var/lib/cni/networks /var/lib/cni/results /etc/systemd/logind.conf.d /run/netns; do directory "$dir"; done
}

kernel() {
    local module setting key value now
    printf '%s\n' "# Written by Windlass' installer." "${MODULES[@]}" | put /etc/modules-load.d/windlass.conf 644
    for module in "${MODULES[@]}"; do
        [ -d "/sys/module/$module" ] && continue
        record module "$module"
        modprobe "$module" 2>/dev/null || say "module $module cannot be loaded; the looks below say whether that matters"
    done
    local lines=("# Written by Windlass' installer.")
    for setting in "${SYSCTLS[@]}" "${AT_LEAST[@]}"; do
        key=${setting%%=*} value=${setting#*=}
        now=$(sysctl -n "$key" 2>/dev/null) || continue
        [[ " ${AT_LEAST[*]} " = *" $setting "* ]] && [ "$now" -ge "$value" ] && ! grep -q "^sysctl $key " "$RECORD" && continue
        lines+=("$key = $value")
        grep -q "^sysctl $key " "$RECORD" || record sysctl "$key" "$now"
    done
    for key in "${SET_LATER[@]}"; do
        now=$(sysctl -n "$key" 2>/dev/null) || continue
        grep -q "^sysctl $key " "$RECORD" || record sysctl "$key" "$now"
    done
    printf '%s\n' "${lines[@]}" | put /etc/sysctl.d/90-windlass.conf 644
    sysctl -q -e -p /etc/sysctl.d/90-windlass.conf || say "some settings of the kernel were refused; the looks below say which"
}

systemd_driver() { [ -d /run/systemd/system ] && [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; }

# What containerd says of the CRI plugin by the operator's files alone, with what a node needs laid over it. In full: containerd 1.x replaces a
# plugin's whole section by the one of an import, so that the drop-in repeats what the operator has set there.
containerd_sections() {
    local plain=$1 others='"/etc/containerd/conf.d/none-*.none"' file
    for file in /etc/containerd/conf.d/*.toml; do [ ! -f "$file" ] || [ "$file" = "$DROP_IN" ] || others+=", \"$file\""; done
    sed -i "s|\"/etc/containerd/conf.d/\*.toml\"|$others|" "$plain"
    containerd --config "$plain" config dump 2>/dev/null |
        awk -v pause="$PAUSE" -v systemd="$(systemd_driver && echo true || echo false)" '
            /^version *=/ { print; next }
            /^[ \t]*\[/ {
                inside = $0 ~ /^[ \t]*\[plugins\.["\047]io\.containerd\.(grpc\.v1\.cri|cri\.v1\.(images|runtime))["\047]/
                runc = $0 ~ /runtimes\.["\047]?(runc|crun)["\047]?\.options\]/
                images = $0 ~ /pinned_images\]/
            }
            !inside { next }
            /^[ \t]*sandbox_image *=/ || (images && /^[ \t]*sandbox *=/) { sub(/=.*/, "= \"" pause "\"") }
            /^[ \t]*bin_dir *=/ && !/= *(""|\047\047)[ \t]*$/ { sub(/=.*/, "= \"/opt/cni/bin\"") }
            /^[ \t]*bin_dirs *=/ && !/\/opt\/cni\/bin/ { sub(/\[/, "[\"/opt/cni/bin\", ") }
            /^[ \t]*conf_dir *=/ { sub(/=.*/, "= \"/etc/cni/net.d\"") }
            runc && /^[ \t]*SystemdCgroup *=/ { sub(/=.*/, "= " systemd) }
            { print }'
}

containerd_config() {
    local plain=$STATE/containerd.toml sections dump
    directory /etc/containerd
    : >"$plain"
    [ ! -f "$CONTAINERD" ] || grep -vxF "$IMPORT" "$CONTAINERD" >"$plain" || true
    if grep -qE '^ *disabled_plugins *=.*"(cri|io\.containerd\.grpc\.v1\.cri)"' "$plain"; then
        die "containerd's CRI plugin is disabled in $CONTAINERD" "sed -i '/^ *disabled_plugins/s/\"\\(io\.containerd\.grpc\.v1\.\\)\?cri\",\? *//' $CONTAINERD, and run this again"
    fi
    if ! grep -qE '^version *= *[23]' "$plain"; then
        if grep -qE '^ *(\[|[a-z_]+ *=)' "$plain"; then
            die "$CONTAINERD is of version 1, which has no drop-ins" "keep what \`containerd config migrate\` prints as $CONTAINERD, and run this again"
        fi
        containerd config default | sed -n '/^version *=/p' >>"$plain"
    fi
    cp "$plain" "$plain.alone"
    sections=$(containerd_sections "$plain.alone")
    grep -q "$PAUSE" <<<"$sections" || die "containerd does not say its configuration" "see what \`containerd config dump\` says"
    {
        echo "# Written by Windlass' installer from what $CONTAINERD says and what a node needs (sandbox image, CNI directories, cgroup driver)."
        echo "# After a change of the CRI plugin's settings there, run the installer again."
        echo "$sections"
    } | put "$DROP_IN" 644 containerd
    if grep -qE '^imports *=.*conf\.d/\*\.toml' "$plain"; then
        :
    elif grep -qE '^imports *=' "$plain"; then
        sed -E 's|^imports *= *\[|&"/etc/containerd/conf.d/*.toml", |' "$plain" | put "$CONTAINERD" 644 containerd
    else
        # a key of the file itself stands before its first table
        { echo "$IMPORT" && cat "$plain"; } | put "$CONTAINERD" 644 containerd
    fi
    dump=$(containerd --config "$CONTAINERD" config dump 2>&1) || die "containerd refuses its configuration: ${dump##*$'\n'}" "mend $CONTAINERD, and run this again"
    grep -q "$PAUSE" <<<"$dump" || die "containerd does not read $DROP_IN" "see \`imports\` in $CONTAINERD"
}

# setting KEY VALUE: in config.yaml; the key's old value, of several lines perhaps, goes
setting() {
    local key=$1 value=$2
    [[ $value =~ ^(true|false|[0-9]+)$ ]] || value="'${value//\'/\'\'}'"
    ! grep -qxF "$key: $value" "$ETC/config.yaml" || return 0
    {
        awk -v key="$key" '
            { if ($0 ~ /^[^ \t#-]/) gone = index($0, key ":") == 1 }
            !gone || /^#/ { print }' "$ETC/config.yaml"
        echo "$key: $value"
    } | put "$ETC/config.yaml" 600 windlass
}

settings() {
    local pair
    if [ ! -f "$ETC/config.yaml" ]; then
        echo "# Settings of windlass server and windlass agent: their flags without dashes (--help lists them)." | put "$ETC/config.yaml" 600 windlass
    fi
    if systemd_driver && [ ! -f "$ETC/kubelet.yaml" ] && ! grep -q '^kubelet-config:' "$ETC/config.yaml"; then
        printf '%s\n' 'apiVersion: kubelet.config.k8s.io/v1beta1' 'kind: KubeletConfiguration' 'cgroupDriver: systemd' |
            put "$ETC/kubelet.yaml" 644 windlass
    fi
    [ ! -f "$ETC/kubelet.yaml" ] || grep -q '^kubelet-config:' "$ETC/config.yaml" || setting kubelet-config "$ETC/kubelet.yaml"
    [ -z "$SERVER" ] || setting server "https://${SERVER#https://}"
    [ -z "$TOKEN" ] || setting token "$TOKEN"
    [ -z "$HASH" ] || setting ca-cert-hash "$HASH"
    for pair in ${SET[@]+"${SET[@]}"}; do setting "${pair%%=*}" "${pair#*=}"; done
}

# What this release needs of a machine beside its files. One that was set up by hand stays as it is.
refresh() {
    local to
    [ -s "$RECORD" ] || return 0
    if [ -f "$LIB/FILES" ]; then listed "$LIB/FILES" | while read -r _ to _; do label "$to"; done; fi
    kernel
    if ! other_runtime; then containerd_config; fi
    runtime
}

# restart UNIT: and wait until it says that it is ready
restart() {
    local unit=$1
    timeout 300 systemctl restart "$unit" && return
    journalctl -u "$unit" -n 20 --no-pager -o cat >&2 || true
    die "$unit is not ready" "the lines above are its last ones; \`journalctl -u $unit\` has all, \`windlass check\` looks for causes"
}

# was UNIT: how a unit is before we touch it
was() {
    local enabled active
    grep -q "^unit $1 " "$RECORD" && return
    enabled=$(systemctl is-enabled "$1" 2>/dev/null) || true
    active=$(systemctl is-active "$1" 2>/dev/null) || true
    record unit "$1" "${enabled:-none}" "${active:-none}"
}

runtime() {
    systemctl daemon-reload
    ! other_runtime || return 0
    systemctl enable -q containerd.service
    # A restart of containerd leaves containers alone.
    if [ -e "$STATE/due.containerd" ] || ! systemctl is-active -q containerd.service; then restart containerd.service; fi
    rm -f "$STATE/due.containerd"
}

service() {
    local unit=windlass-$ROLE.service looks=(--role "$ROLE")
    # Ports in use are its own while it runs.
    [[ $(systemctl is-active "$unit" 2>/dev/null) != @(active|activating|reloading|deactivating) ]] || looks+=(--running)
    "$BIN/windlass" check "${looks[@]}" || [ -n "$FORCE" ] || die "the looks above found what keeps Windlass from working" "mend it and run this again, or give --force"
    was "$unit"
    systemctl enable -q "$unit"
    [ -z "$NO_START" ] || return 0
    if [ -e "$STATE/due.windlass" ] || ! systemctl is-active -q "$unit"; then restart "$unit"; fi
    rm -f "$STATE/due.windlass"
    say "$unit is ready"
    if [ "$ROLE" = server ]; then
        say "the line that other machines join by: $BIN/windlass token create --print-join-command"
        say "  there, as root: ./install.sh agent and what stands after \`windlass agent\` in that line"
        say "a kubeconfig: $BIN/windlass kubeconfig"
    fi
}

# --- back -----------------------------------------------------------------------------------------------------------------------------

unmount() {
    local at
    awk -v below="$1" '$2 == below || index($2, below "/") == 1 {print $2}' /proc/mounts | tac | while read -r at; do umount -l "$at" || true; done
}

# theirs FILE: containerd's configuration without what of it is ours
theirs() { grep -vxF "$IMPORT" "$1" 2>/dev/null | sed -E 's|^(imports *= *\[)"/etc/containerd/conf\.d/\*\.toml", |\1|' || true; }

# edited FILE: the operator has changed containerd's configuration since it was installed; what they have of it is kept then, without ours
edited() {
    local file=$1 before=$BEFORE$1
    [ "$file" = "$CONTAINERD" ] && [ -f "$file" ] || return 1
    theirs "$file" >"$STATE/now"
    theirs "$before" >"$STATE/was"
    # A version where there was none is ours, too.
    if ! grep -qE '^version *=' "$STATE/was"; then
        grep -vE '^version *=' "$STATE/now" >"$STATE/plain" || true
        ! cmp -s "$STATE/plain" "$STATE/was" || return 1
    fi
    ! cmp -s "$STATE/now" "$STATE/was" || return 1
    say "$file was changed since the installation: it stays, without what of it is ours"
    # An import that was there before us is the operator's.
    local kept=$STATE/now
    ! grep -qsE '^imports *=.*"/etc/containerd/conf\.d/\*\.toml"' "$before" || kept=$file
    # Whoever calls this in a condition has no `set -e`.
    if ! { cp -a "$file" "$file.windlass-new" && cat "$kept" >"$file.windlass-new" && mv -T "$file.windlass-new" "$file"; }; then
        die "$file cannot be written" "make room, and run this again"
    fi
}

# keep PACKAGE: purging containerd takes its configuration along, one that was there before the package, too
keep() {
    [[ $1 = containerd* ]] && grep -qxF "kept $CONTAINERD" "$RECORD" && [ -f "$CONTAINERD" ] || return 0
    cp -a "$CONTAINERD" "$STATE/kept.new"
    mv "$STATE/kept.new" "$STATE/kept"
}
give_back() {
    [[ $1 = containerd* ]] && [ -f "$STATE/kept" ] && [ ! -e "$CONTAINERD" ] || return 0
    mkdir -p "$(dirname "$CONTAINERD")"
    cp -a "$STATE/kept" "$CONTAINERD.windlass-new"
    mv "$CONTAINERD.windlass-new" "$CONTAINERD"
}

# undo KIND WHAT REST: what one line of the record stands for; twice is as good as once
undo() {
    local kind=$1 what=$2 rest=$3
    case $kind in
    made)
        ! edited "$what" || return 0
        rm -rf "$what" "$what.windlass-new"
        # what an upgrade leaves beside a program
        case $what in */bin/windlass*) rm -rf "$what.old" "$(dirname "$what")"/.windlass-{release,upgrade}* ;; esac ;;
    changed)
        ! edited "$what" || return 0
        cp -a "$BEFORE$what" "$what.windlass-new"
        mv -T "$what.windlass-new" "$what" ;;
    dir) rmdir "$what" 2>/dev/null || true ;;
    tree) [ -n "$KEEP_PACKAGES" ] || command -v containerd >/dev/null || { unmount "$what" && rm -rf --one-file-system "$what"; } ;;
    module) modprobe -r "$what" 2>/dev/null || true ;;
    sysctl) sysctl -q -e -w "$what=$rest" || true ;;
    unit)
        systemctl daemon-reload || true
        case $rest in enabled*) ;; *) systemctl disable -q "$what" 2>/dev/null || true ;; esac
        case $rest in *" active") systemctl restart "$what" || true ;; *) systemctl stop "$what" 2>/dev/null || true ;; esac
        # one that failed is known by its name for as long as nobody says that this was seen
        systemctl reset-failed "$what" 2>/dev/null || true ;;
    package)
        [ -z "$KEEP_PACKAGES" ] || return 0
        local other
        if command -v apt-get >/dev/null; then
            dpkg-query -W "$what" >/dev/null 2>&1 || { give_back "$what" && return 0; }
            for other in $(apt-get -s purge "$what" 2>/dev/null | sed -nE 's/^(Purg|Remv) ([^ ]*).*/\2/p'); do
                grep -qxF "package $other" "$RECORD" || { say "$what stays: $other needs it" && return 0; }
            done
            keep "$what"
            apt-get purge -y -qq "${APT[@]}" "$what" </dev/null
            give_back "$what"
        else
            rpm -q "$what" >/dev/null 2>&1 || { give_back "$what" && return 0; }
            for other in $(dnf -q repoquery --installed --whatrequires "$what" --qf '%{name}\n' 2>/dev/null); do
                grep -qxF "package $other" "$RECORD" || { say "$what stays: $other needs it" && return 0; }
            done
            # containerd goes along with what it needs
            keep containerd
            dnf remove -y -q "$what" </dev/null
            give_back containerd
        fi ;;
    esac
}

uninstall() {
    local unit program kind what rest
    if [ ! -f "$RECORD" ]; then
        # A run that was cut short before its first change, or an undoing after its last.
        local left=''
        [ ! -d "$STATE" ] || { rm -rf "$STATE" && left=1; }
        ! rmdir "$ETC" 2>/dev/null || left=1
        [ -n "$left" ] || die "there is nothing to undo: $RECORD is not there"
        say "undone"
        return
    fi
    for unit in windlass-server.service windlass-agent.service; do systemctl stop "$unit" 2>/dev/null || true; done
    for program in /usr/local/bin/windlass /usr/bin/windlass; do
        [ -x "$program" ] || continue
        "$program" reset --yes || die "\`windlass reset\` could not undo all" "see above, and run this again"
        break
    done
    [ -n "$KEEP_PACKAGES" ] || finish_packages
    # The last line first; it goes once it is undone.
    while [ -s "$RECORD" ]; do
        read -r kind what rest < <(tail -n 1 "$RECORD")
        undo "$kind" "$what" "$rest"
        sed -i '$d' "$RECORD"
    done
    systemctl daemon-reload || true
    rm -rf "$STATE"
    rmdir "$ETC/manifests" "$ETC" 2>/dev/null || true
    say "undone"
}

# --- the line -------------------------------------------------------------------------------------------------------------------------

ROLE='' SERVER=${WINDLASS_SERVER:-} TOKEN=${WINDLASS_TOKEN:-} HASH=${WINDLASS_CA_CERT_HASH:-} SET=() FORCE='' NO_START='' UNINSTALL='' REFRESH='' KEEP_PACKAGES=''
while [ $# -gt 0 ]; do
    case $1 in
    server | agent) ROLE=$1 ;;
    --server) SERVER=${2:?--server needs a value} && shift ;;
    --token) TOKEN=${2:?--token needs a value} && shift ;;
    --ca-cert-hash | --discovery-token-ca-cert-hash) HASH=${2:?$1 needs a value} && shift ;;
    --set)
        [[ ${2:-} = *=* ]] || die "--set needs KEY=VALUE"
        SET+=("$2") && shift ;;
    --force) FORCE=1 ;;
    --no-start) NO_START=1 ;;
    --uninstall) UNINSTALL=1 ;;
    --refresh) REFRESH=1 ;;
    --keep-packages) KEEP_PACKAGES=1 ;;
    -h | --help)
        usage
        exit 0 ;;
    -*) die "unknown flag $1" "$0 --help" ;;
    *)
        [ "$ROLE" = agent ] || die "unknown word $1" "$0 --help"
        SERVER=$1 ;;
    esac
    shift
done

[ "$(id -u)" -eq 0 ] || die "this needs root" "run it by sudo"
[ -d /run/systemd/system ] || die "systemd does not run here" "install by hand, as docs/install.md says"
# One run at a time.
exec 9>/run/windlass-install.lock
flock -n 9 || die "another run of this is under way"

if [ -n "$UNINSTALL" ]; then
    uninstall
    rm -f /run/windlass-install.lock
    exit 0
fi
if [ -n "$REFRESH" ]; then
    refresh
    exit 0
fi
[ -n "$ROLE" ] || { usage && exit 1; }

HERE=$(dirname "$(readlink -f "$0")")
DIST=''
if [ -f "$HERE/SHA256SUMS" ]; then
    DIST=$HERE
elif [ -x /usr/bin/windlass ] && [ "$HERE" = /usr/lib/windlass ]; then
    BIN=/usr/bin LIB=/usr/lib/windlass
elif [ ! -x "$BIN/windlass" ]; then
    die "there is no release beside this script" "run it from the folder that \`make dist\` packs"
fi
if [ "$ROLE" = agent ] && [ -z "$SERVER" ] && ! grep -qs '^server:' "$ETC/config.yaml"; then
    die "an agent needs a server" "give HOST:6443 and --token, as \`windlass token create --print-join-command\` prints them"
fi

OTHER=windlass-agent.service
[ "$ROLE" = server ] || OTHER=windlass-server.service
! systemctl is-enabled -q "$OTHER" 2>/dev/null || die "this machine runs $OTHER" "run this with --uninstall first"

mkdir -p "$STATE"
chmod 700 "$STATE"
touch "$RECORD"
places
packages
programs
kernel
if ! other_runtime; then
    was containerd.service
    containerd_config
fi
settings
runtime
service

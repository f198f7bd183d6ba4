# Sourced by scripts that fetch packages: an apt of its own, and where the archives are. Needs environment.sh.
#
# No address is written down here. Debian's archive is the one that this machine's apt
# uses, and so is Ubuntu's where this machine is an Ubuntu; a Debian knows Ubuntu's from its
# own package python-apt-common. The caller's variables come before all that:
#
#   DEBIAN_ARCHIVE, DEBIAN_SECURITY_ARCHIVE, UBUNTU_ARCHIVE

debian_keys=/usr/share/keyrings/debian-archive-keyring.gpg
ubuntu_keys=
apt_folder=
apt=()

# The distribution's releases that ship a major version of PostgreSQL; the first is the one
# that has had it from the beginning.
suites_with_postgresql() {
    case $1 in
        15) echo bookworm bookworm-security ;;
        16) echo noble noble-updates noble-security ;; # no Debian release had it
        17) echo trixie trixie-security ;;
        18) echo forky ;;
        *)  return 1 ;;
    esac
}

# private_apt FOLDER makes an apt that knows only the suites it is given and believes that
# nothing is installed. A frozen mirror must do, so the index may be old; it is signed all the same.
private_apt() {
    apt_folder=$1
    mkdir -p "$apt_folder"/{lists/partial,archives/partial}
    : >"$apt_folder/status"
    apt=(
        -o Dir::State::status="$apt_folder/status"
        -o Dir::State::lists="$apt_folder/lists"
        -o Dir::Cache="$apt_folder"
        -o Dir::Cache::archives="$apt_folder/archives"
        -o Dir::Etc::sourcelist="$apt_folder/sources.list"
        -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null
        -o Dir::Etc::preferencesparts=/dev/null
        -o Acquire::Languages=none
        -o Acquire::Check-Valid-Until=false
        -o Debug::NoLocking=true
        -o APT::Sandbox::User="$(id -un)"
    )
}

# use_suites TYPE SUITE...: TYPE is deb or deb-src.
use_suites() {
    local type=$1 suite lines=()
    shift
    for suite in "$@"; do
        lines+=("$(suite_line "$type" "$suite")") || return
    done
    printf '%s\n' "${lines[@]}" >"$apt_folder/sources.list"
    apt-get "${apt[@]}" update -q >&2
}

suite_line() {
    local type=$1 suite=$2 keys=$debian_keys sections=main address
    case $suite in
        noble*)     keys=$ubuntu_keys sections='main universe' address=$(ubuntu_archive) || return ;;
        *-security) address=$(debian_security_archive) || return ;;
        *)          address=$(debian_archive) || return ;;
    esac
    [ -r "$keys" ] || die "the keys of $address are missing: install debian-archive-keyring"
    echo "$type [signed-by=$keys] $address $suite $sections"
}

download() {
    (cd "$apt_folder/archives" && apt-get "${apt[@]}" download -q "$@" >&2)
}

# Also without the lists that `apt-get update` fetches: then only the suites' names tell what they are.
configured_archive() {
    local origin=$1 label=$2 suites=$3
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(CODENAME)|$(RELEASE)|$(REPO_URI)' \
        | awk -F '|' -v origin="$origin" -v label="$label" -v suites="^($suites)\$" '
            $5 ~ /^cdrom:/ { next }
            $1 == origin && $2 == label { print $5; found = 1; exit }
            $1 !~ /^[A-Z]/ && $4 ~ suites && guess == "" { guess = $5 }
            END { if (!found && guess != "") print guess }'
}

debian_archive() {
    local address=${DEBIAN_ARCHIVE:-}
    [ -n "$address" ] \
        || address=$(configured_archive Debian Debian 'bookworm|trixie|forky|sid|stable|testing')
    [ -n "$address" ] || die "this machine's apt knows no Debian archive: name one in DEBIAN_ARCHIVE"
    echo "$address"
}

debian_security_archive() {
    local address=${DEBIAN_SECURITY_ARCHIVE:-}
    [ -n "$address" ] || address=$(configured_archive Debian Debian-Security '(bookworm|trixie|stable)-security')
    if [ -z "$address" ]; then
        address=$(debian_archive) || return
        # Where mirrors have both, they are neighbours.
        address=${address%/}-security
    fi
    echo "$address"
}

ubuntu_archive() {
    local address=${UBUNTU_ARCHIVE:-}
    [ -n "$address" ] || address=$(configured_archive Ubuntu Ubuntu 'noble|jammy|questing')
    [ -n "$address" ] || address=$(ubuntu_archive_known_to_debian)
    [ -n "$address" ] || die "no Ubuntu archive is known here: name one in UBUNTU_ARCHIVE"
    echo "$address"
}

# Needs a Debian suite in use.
ubuntu_archive_known_to_debian() {
    local folder=/usr/share/python-apt/templates templates
    # "Ubuntu" until bookworm, "ubuntu" from trixie on.
    if ! templates=$(compgen -G "$folder/[Uu]buntu.info"); then
        folder=$(unpacked python-apt-common)$folder || return
        templates=$(compgen -G "$folder/[Uu]buntu.info") || return 0
    fi
    awk -v ours="BaseURI-$(dpkg --print-architecture):" '
        $1 == ours { print $2; found = 1; exit }
        $1 == "BaseURI:" && other == "" { other = $2 }
        END { if (!found) print other }' "$templates"
}

# Debian's own packages vouch for Ubuntu's keys.
trust_ubuntu() {
    [ -z "$ubuntu_keys" ] || return 0
    use_suites deb trixie || return
    UBUNTU_ARCHIVE=$(ubuntu_archive) || return
    local keyring
    keyring=$(unpacked ubuntu-keyring) || return
    ubuntu_keys=$keyring/usr/share/keyrings/ubuntu-archive-keyring.gpg
}

# Fetches a package, unpacks it beside apt's files and prints where.
unpacked() {
    local place=$apt_folder/unpacked/$1
    download "$1" || return
    mkdir -p "$place"
    dpkg-deb --extract "$apt_folder/archives/$1"_*.deb "$place" || return
    rm "$apt_folder/archives/$1"_*.deb
    echo "$place"
}

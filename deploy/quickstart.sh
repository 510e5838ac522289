#!/usr/bin/env bash
# From a fresh Debian 12 machine to a model that answers a question about a document. Run it again: seconds.
set -euo pipefail
# shellcheck source=deploy/prepare.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/prepare.sh"

usage() {
  cat <<'USAGE'
usage: deploy/quickstart.sh

Installs the Debian packages that are missing (as root or with sudo), builds palimpsest into build/release,
fetches the model SmolLM2-135M-Instruct (94 MiB) into the data folder, ingests deploy/sample/lighthouse.md and
asks a question about it. The data folder is $PALIMPSEST_DATA_DIR, else ~/.local/share/palimpsest.
USAGE
}
case "${1:-}" in
  "") ;;
  -h | --help) usage && exit 0 ;;
  *) usage >&2 && exit 2 ;;
esac

say "Palimpsest quick start: packages, build, model, a document, a question"
require_packages "${BUILD_PACKAGES[@]}"
hand_back_to_caller "$(readlink -f -- "$0")" "$@"
require_writable_checkout
build release palimpsest
fetch_model

palimpsest="$REPO/build/release/apps/palimpsest"
sample="$REPO/deploy/sample/lighthouse.md"
IFS=$'\t' read -r question expected < <(grep -v '^#' "$REPO/deploy/sample/questions.txt")

say "Ingesting deploy/sample/lighthouse.md into $(data_dir)"
"$palimpsest" ingest "$sample"

say "Asking: $question"
"$palimpsest" ask --document "$sample" "$question"

say "It works (the document says: $expected). What to try next:"
cat <<NEXT
    alias palimpsest=$palimpsest
    palimpsest ask --document $sample "What is the name of the cat?"
    palimpsest ask --document FILE.md "Your question"     # your own text or Markdown, of any length
    palimpsest documents list
    palimpsest help ask
NEXT

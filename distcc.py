#!/bin/sh
''':'
# Read by sh: start Python without site and environment (7 ms instead of 11), and load this
# file as a module, so that its cached bytecode serves (5 ms less for each 1000 lines), without
# docstrings (0.1 ms).
# /usr/bin/python3 comes first because a version manager's shim may cost 100 ms. In its UTF-8 mode
# Python starts in every locale, and without it in none whose charset it does not know. SIGINT
# ends us without a traceback until the client has its own handler. Without any Python the compiler
# runs here: the first word, or what follows us in PATH under the name by which we were called.
python=/usr/bin/python3
if ! [ -x "$python" ]; then
    python=python3
    if ! command -v python3 >/dev/null; then
        echo "distcc.py: there is no python3; running the compiler here" >&2
        case ${0##*/}/$1 in
        *distcc*/-*) exec cc "$@" ;;
        *distcc*/*) exec "$@" ;;
        esac
        IFS=:
        for directory in $PATH; do
            compiler=$directory/${0##*/}
            [ -x "$compiler" ] && ! [ "$compiler" -ef "$0" ] && exec "$compiler" "$@"
        done
    fi
fi
exec "$python" -X utf8 -ISOO -c '
import _signal
if _signal.getsignal(2) is _signal.default_int_handler:
    _signal.signal(2, _signal.SIG_DFL)
import posix, sys
del sys.argv[0]
if sys.version_info < (3, 8):
    import os
    os.execvp("python3", ["python3"] + sys.argv)
from _frozen_importlib_external import SourceFileLoader
__file__ = sys.argv[0]
while True:
    try:
        link = posix.readlink(__file__)
    except OSError:
        break
    __file__ = link if link[0] == "/" else __file__[:__file__.rfind("/") + 1] + link
exec(SourceFileLoader("distcc", __file__).get_code("distcc"))
' "$0" "$@"
'''
__doc__ = """distcc.py: compile C, C++ and Objective-C on other machines.

Stands before a compiler command. The command and the files that it reads go to the daemon
distccd.py on a volunteer machine, and the object, the messages and the exit status are left
as the compiler alone would have left them. What cannot be shared runs here. For daemons that
can take no files the source is preprocessed here, and the text goes there.

Three ways to call it:
    distcc.py gcc -c hello.c            explicitly, before the compiler
    distcc.py -c hello.c                implicitly: the compiler is cc
    ln -s distcc.py ~/masquerade/gcc    as the compiler, when that directory leads PATH

Environment:
    DISTCC_HOSTS            volunteers: HOST[:PORT][/LIMIT] or [IPV6]:PORT/LIMIT, localhost;
                            [USER]@ before HOST: over ssh
    DISTCC_SSH              the ssh command, with its first options
    DISTCC_VERBOSE          1: say everything; 0: not even the notice of each job
    DISTCC_LOG              file that takes distcc's own messages instead of stderr
    DISTCC_SAVE_TEMPS       1: keep working files
    DISTCC_TCP_CORK         0: do not hold packets back until they are full
    DISTCC_DIR              directory of `hosts` and `lock` (else ~/.distcc and TMPDIR)
    DISTCC_WAY              text: preprocess here and send the text, as C distcc does
    DISTCC_FALLBACK         0: fail with the reason's exit code instead of compiling here
    DISTCC_IO_TIMEOUT       seconds without a byte from a volunteer (300)
    DISTCC_BACKOFF_PERIOD   seconds that an unreachable volunteer is left alone (60)

Files:
    $DISTCC_DIR/hosts ~/.distcc/hosts /etc/distcc/hosts    volunteers, if DISTCC_HOSTS is unset
    $DISTCC_DIR/lock or $TMPDIR/distcc-UID                 locks of slots, working files
"""

import posix        # `os` would cost 1.7 ms, an eighth of the client; this is what is beneath it
import sys

import _signal      # `signal` and `socket` build enumerations: 4 and 8 ms, these modules 0.2
import fcntl
try:
    import _stat as stat    # what `stat` takes its functions from, which costs 0.1 ms more
except ImportError:
    import stat             # PyPy has no other

VERSION = "1.0"

# -------------------------------------------------------------------------------------------
# Wire: exit codes, protocol 1 and compiler options, the same text in both scripts
# pack_header read_exactly read_header long_to_short classify_option assembler_words_harmless
# language_of
# -------------------------------------------------------------------------------------------

# The exit codes of the distcc 0.14 manual, section 2.9; 101 and 111 as C distcc has them.
# They lie high, where no compiler's own exit code is.
EXIT_DISTCC_FAILED = 100
EXIT_BAD_ARGUMENTS = 101
EXIT_BIND_FAILED = 102
EXIT_CONNECT_FAILED = 103
EXIT_COMPILER_CRASHED = 104
EXIT_OUT_OF_MEMORY = 105
EXIT_BAD_HOSTSPEC = 106
EXIT_IO_ERROR = 107
EXIT_TRUNCATED = 108
EXIT_PROTOCOL_ERROR = 109
EXIT_COMPILER_MISSING = 110
EXIT_RECURSION = 111
OWN_EXIT_CODES = range(100, 120)            # in a STAT: "not compiled", never a compiler's word

PROTOCOL_VERSION = 1
DEFAULT_PORT = 4200
RECURSION_GUARD = "_DISTCC_SAFEGUARD"       # C distcc reads the same name
RECURSION_LIMIT = 5                         # calls within calls; a daemon's compiler starts here

# What a peer may announce, in bytes; Linux itself bounds an argument to 128 KiB.
HEADER_BYTES = 12
MAX_ARGUMENTS = 16384
MAX_ARGUMENT_BYTES = 128 * 1024
MAX_COMMAND_BYTES = 2 * 1024 * 1024
MAX_SOURCE_BYTES = 1024 * 1024 * 1024
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_OBJECT_BYTES = 0xffffffff
CHUNK_BYTES = 256 * 1024


class WireError(Exception):
    """The peer broke the protocol or hung up; `code` is the exit code that stands for it."""

    def __init__(self, code, reason):
        """code: EXIT_TRUNCATED or EXIT_PROTOCOL_ERROR; reason: one line of text."""
        super().__init__(reason)
        self.code = code


def pack_header(token, number):
    """Return the 12 bytes of a packet header: four of token, eight lower-case hex digits."""
    return b"%s%08x" % (token, number)


def read_exactly(receive, count, wanted):
    """Return exactly `count` bytes taken from receive(most) -> bytes.

    `wanted` names them in the WireError that an early end of file raises."""
    pieces = []
    missing = count
    while missing:
        piece = receive(min(missing, CHUNK_BYTES))
        if not piece:
            raise WireError(EXIT_TRUNCATED, "connection closed after %d of %d bytes of %s"
                            % (count - missing, count, wanted))
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def read_one_of(receive, tokens):
    """Read one packet header that must carry one of `tokens`, {token: greatest number}; return
    (token, number).

    Raises WireError: truncated, another token, digits that are none, a number too large."""
    header = read_exactly(receive, HEADER_BYTES, " or ".join(map(bytes.decode, tokens)))
    token, digits = header[:4], header[4:]
    if token not in tokens or digits.translate(None, b"0123456789abcdefABCDEF"):
        raise WireError(EXIT_PROTOCOL_ERROR, "expected %s and 8 hex digits, got %r"
                        % (" or ".join(map(bytes.decode, tokens)), header))
    number = int(digits, 16)
    if number > tokens[token]:
        raise WireError(EXIT_PROTOCOL_ERROR, "%s announces %d, more than %d"
                        % (token.decode(), number, tokens[token]))
    return token, number


def read_header(receive, token, most):
    """Read one packet header that must carry `token`; return its number, at most `most`.

    Raises WireError as read_one_of does."""
    return read_one_of(receive, {token: most})[1]


# Jobs by files: protocol 64, ours alone. The command travels as it is, and with it a list of all
# files that it may read; packets are as in protocol 1. A request, and what answers it:
#
#   DIST 64 · FLAG bits · ARGC n · n x ARGV · CWDD path · ENVC n · n x ENVV NAME=VALUE · UMSK mask
#       · PAGE entries · LIST references · contents · SENT 0
#   LIFE 0                      at least every five seconds, from the answer's side
#   NEED digests                one after the other, 64 hex digits each: send these too, which the
#                               client answers with contents · SENT 0
#   DONE 64 · STAT wait status · SERR · SOUT · NOTE words · FILC n · n x (NAME path · MODE mode
#       · DATA or ZDAT)         the end; NAME is absolute, MODE 0 (and no data) says: removed
#
# contents: any number of BODY (digest, then the content) and ZBDY (digest, eight hex digits of
#   the content's length, then the content deflated); DATA and ZDAT are the same without digest.
# FLAG: bit 0 asks for ZDAT, bit 1 says that stderr is a terminal. NOTE: NAME=VALUE words, blanks
#   between, about the daemon.
# An entry is two byte strings, each ended by a zero byte: head and absolute path. A head is
#   "d"                                     a directory, with all those above it
#   "s" TARGET                              a symbolic link
#   "f" KIND " " DIGEST " " SIZE " " MTIME " " INODE      a file; MTIME in ns, decimal; SIZE and
#       INODE in hex. KIND: "-" plain; "x" may be executed; "l" a shared library, in whose place
#       the daemon may put its own machine's. Files of one INODE are one file under several names,
#       other files are different ones even where they are equal.
# A page is a content that holds up to 64 entries one after the other (PAGE: those of this job
#   alone, any number). A reference is a line "DIGEST MASK": of the page with that digest the
#   entries whose bits are set in the hex number MASK, the lowest bit for the first.
# A digest is BLAKE2b with 32 bytes, in lower-case hex.
# By text between our own two: DIST 65 · PAGE entries (of the programs) · ARGC and the rest as in
#   protocol 1, answered with DONE 65 and the rest; STAT 110 << 8 if a program there is another.
FILES_VERSION = 64
CHECKED_TEXT_VERSION = 65
PAGE_ENTRIES = 64
DIGEST_DIGITS = 64
FLAG_DEFLATE, FLAG_TERMINAL = 1, 2
MAX_ENTRIES = 65536
MAX_PATH_BYTES = 4096
MAX_PAGE_BYTES = 4 * 1024 * 1024
MAX_LIST_BYTES = 1024 * 1024
MAX_VARIABLES = 1024
MAX_NEED_BYTES = 2 * MAX_ENTRIES * DIGEST_DIGITS
MAX_RESULTS = 4096
MAX_FILE_BYTES = 1024 * 1024 * 1024
MIN_DEFLATED_BYTES = 1024                   # less is sent as it is
LIFE_INTERVAL_S = 5.0                       # who waits for a reply hears from us so often


def digest_of(content):
    """Return the digest of a buffer, 64 hex digits as bytes."""
    from _blake2 import blake2b     # hashlib would cost the client 2.9 ms
    return blake2b(content, digest_size=DIGEST_DIGITS // 2).hexdigest().encode()


# Compiler options. Each word below is an option; one that ends in * stands for all that begin
# so. The longest match decides. The kinds are:
PLAIN = "plain"                  # code generation or warnings: goes to every compiler
PREPROCESSOR = "preprocessor"    # has done its work when the source is preprocessed
LINKER = "linker"                # without meaning for -c and -S, even in gcc's specs
SPECIAL = "special"              # decides what the job is: each side reads it with its own code
ELSEWHERE = "elsewhere"          # reads or writes other files, or depends on where it runs
UNKNOWN = "unknown"
NO_OBJECT = "no object is made from one source"

# Options that take the next word when nothing is joined to them.
SEPARATE_ARGUMENT = frozenset("""
    -o -x -D -U -I -F -A -include -imacros -idirafter -iprefix -iwithprefix -iwithprefixbefore
    -isystem -isysroot --sysroot -iquote -iframework -imultilib -imultiarch -cxx-isystem -c-isystem
    -MF -MT -MQ -MJ -L -l -T -Tbss -Tdata -Ttext -u -z -e -R -h -rpath -Wl -Xlinker
    -Xpreprocessor -Xassembler -Xclang -Xanalyzer -Xopenmp-target -Xarch_host -Xarch_device
    -mllvm -plugin-arg --param -b -V -G -B -aux-info -dumpbase -dumpbase-ext -dumpdir -wrapper
    -specs -target -arch -include-pch -index-store-path -gcc-toolchain -ivfsoverlay -iplugindir
    -serialize-diagnostics --serialize-diagnostics -working-directory -framework -rdynamic-list
    -ccc-gcc-name -ccc-install-dir -dependency-file -fmodule-name -main-file-name -weak_framework
    -bundle_loader -install_name -force_load -dylib_file -current_version
    -compatibility_version -fintrinsic-modules-path -fnew-alignment
    -multiply_defined_unused""".split())

# GNU long options and the short ones that they stand for; a trailing = takes an argument,
# joined or as the next word (gcc documents them only in its option tables).
LONG_OPTIONS = {
    "--all-warnings": "-Wall", "--ansi": "-ansi", "--assemble": "-S", "--comments": "-C",
    "--assert=": "-A", "--comments-in-macros": "-CC", "--compile": "-c", "--coverage": "-coverage",
    "--debug": "-g", "--define-macro=": "-D", "--dependencies": "-M", "--dump=": "-d",
    "--dumpbase=": "-dumpbase", "--dumpbase-ext=": "-dumpbase-ext", "--dumpdir=": "-dumpdir",
    "--entry=": "-e", "--extra-warnings": "-Wextra", "--for-assembler=": "-Xassembler",
    "--for-linker=": "-Xlinker", "--force-link=": "-u", "--imacros=": "-imacros",
    "--include=": "-include", "--include-barrier": "-I-", "--include-directory=": "-I",
    "--include-directory-after=": "-idirafter", "--include-prefix=": "-iprefix",
    "--include-with-prefix=": "-iwithprefix", "--language=": "-x", "--library-directory=": "-L",
    "--include-with-prefix-after=": "-iwithprefix",
    "--include-with-prefix-before=": "-iwithprefixbefore", "--no-line-commands": "-P",
    "--no-standard-includes": "-nostdinc", "--no-standard-libraries": "-nostdlib",
    "--no-warnings": "-w", "--optimize": "-O", "--output=": "-o", "--pedantic": "-pedantic",
    "--pedantic-errors": "-pedantic-errors", "--pipe": "-pipe", "--preprocess": "-E",
    "--prefix=": "-B", "--print-missing-file-dependencies": "-MG", "--profile": "-p",
    "--save-temps": "-save-temps", "--shared": "-shared", "--specs=": "-specs",
    "--static": "-static", "--std=": "-std=", "--trace-includes": "-H",
    "--traditional": "-traditional-cpp", "--traditional-cpp": "-traditional-cpp",
    "--trigraphs": "-trigraphs", "--undefine-macro=": "-U", "--user-dependencies": "-MM",
    "--verbose": "-v", "--write-dependencies": "-MD", "--write-user-dependencies": "-MMD"}

OPTIONS_BY_KIND = {
    SPECIAL: """-c -S -o* -x* -M -MM -MD -MMD -MF* -MT* -MQ* -MP -MG -Wp,* -Wa,* -arch
        -Xpreprocessor -Xassembler""",
    PREPROCESSOR: """-A* -D* -F* -I* -U* -C -CC -cxx-isystem* -c-isystem* -idirafter* -iframework*
        -imacros* -imultiarch* -imultilib* -include* -iprefix* -iquote* -isysroot* -isystem*
        -iwithprefix* -iwithprefixbefore* -nostdinc -nostdinc++ -nostdlibinc -nobuiltininc -remap
        --sysroot* -finput-charset=* -traditional-cpp""",
    LINKER: """-L* -l* -Wl,* -Xlinker -T* -Tbss* -Tdata* -Ttext* -u -z -e* -h -rpath -framework
        -weak_framework -fuse-ld=*""",
    PLAIN: """-s -r -N -n -t -rdynamic -static -static-libgcc -static-libstdc++ -static-pie -shared
        -shared-libgcc -symbolic -pie -no-pie -nopie -nostdlib -nostartfiles -nodefaultlibs
        -nolibc -nostdlib++
        -O* -std=* -ansi -undef -w -W -pedantic -pedantic-errors -pipe -pthread -pthreads -p
    -pg
        --param* -target --target=* -stdlib=* -b -V -G* -trigraphs -Qunused-arguments
        -g -g0 -g1 -g2 -ggdb -ggdb0 -ggdb1 -ggdb2 -gdwarf* -gno-* -gstrict-dwarf -gz*
        -gcolumn-info -gline-tables-only -gmlt -gpubnames -ggnu-pubnames -grecord-gcc-switches
        -g3 -ggdb3 -gstabs* -gctf* -gbtf* -glldb* -frecord-gcc-switches -frecord-command-line
        -grecord-command-line -fdebug-macro -femit-struct-debug-* -fno-emit-struct-debug-*
        -gstatement-frontiers -gvariable-location-views* -ginline-points -gas-loc-support
        -gas-locview-support -ginternal-reset-location-views -gdescribe-dies -gtoggle
        -ffile-prefix-map=* -fdebug-prefix-map=* -fmacro-prefix-map=* -fcoverage-prefix-map=*
        -fdebug-compilation-dir=*
        -fabi-compat-version=* -fabi-version=* -faligned-new=* -falign-functions=* -falign-jumps=*
        -falign-labels=* -falign-loops=* -fasan-shadow-offset=* -fcf-protection=*
        -fclang-abi-compat=*
        -fconstant-string-class=* -fconstexpr-cache-depth=* -fconstexpr-depth=*
        -fconstexpr-loop-limit=* -fconstexpr-ops-limit=* -fconstexpr-steps=* -fdiagnostics-color=*
        -fdiagnostics-column-origin=* -fdiagnostics-column-unit=* -fdiagnostics-escape-format=*
        -fdiagnostics-minimum-margin-width=* -fdiagnostics-path-format=* -fdiagnostics-urls=*
        -fdiagnostics-show-location=* -fexcess-precision=* -fexec-charset=* -ffixed-* -fcall-used-*
        -fcall-saved-* -ffp-contract=* -ffp-exception-behavior=* -ffp-model=* -ffp-eval-method=*
        -fivar-visibility=* -fira-algorithm=* -fira-region=* -flive-patching=*
        -finline-limit=* -flifetime-dse=*
        -ftree-parallelize-loops=* -fsso-struct=* -fira-verbose=* -fmessage-length=*
        -fmax-errors=* -fmax-include-depth=* -fms-compatibility-version=*
        -fmudflap*
        -fname-mangling-version-* -fobjc-abi-version=* -fobjc-runtime=* -fopenmp=*
        -fpack-struct=* -fpatchable-function-entry=* -fpermitted-flt-eval-methods=*
        -fprefetch-loop-arrays* -frandom-seed=* -freorder-blocks-algorithm=* -fsanitize=*
        -fsanitize-recover=* -fsanitize-trap=* -fsanitize-sections=* -fsanitize-coverage=*
        -fno-sanitize=* -fno-sanitize-recover=* -fno-sanitize-trap=*
        -fsched-stalled-insns=* -fsched-stalled-insns-dep=* -fsched-verbose=* -fsimd-cost-model=*
        -fstack-limit-symbol=* -fstack-limit-register=* -fstack-reuse=* -fstack-check=*
        -fstack-clash-protection -fstrict-flex-arrays=* -fstrong-eval-order=* -ftabstop=*
        -ftemplate-backtrace-limit=* -ftemplate-depth=* -ftemplate-depth-* -ftls-model=*
        -ftrivial-auto-var-init=* -fvect-cost-model=* -fvisibility=* -fvtable-verify=*
        -fwide-exec-charset=* -fzero-call-used-regs=* -fzero-init-padding-bits=*""",
}

# The same for ELSEWHERE, by the reason that the user is told.
REASONS_ELSEWHERE = {
    NO_OBJECT: """-E -fsyntax-only -### --help* -print-* --print-*
        -dumpmachine -dumpversion -dumpfullversion -dumpspecs --version --target-help -emit-llvm
        -emit-ast --analyze -analyze -rewrite-objc -combine -verify-pch --precompile -Xarch_*""",
    "it prints about this machine or this run": """-v -H -Q -time -ftime-report* -fmem-report*
        -fpre-ipa-mem-report -fpost-ipa-mem-report -fbacktrace -fstats -report-bug -fdbg-cnt-list
        -mdump-tune-features -freport-bug
        -ftime-report-details -fproc-stat-report* -fstack-usage-report -Rpass* -R*""",
    "it writes another file": """-gsplit-dwarf* -save-stats* --coverage -coverage -ftest-coverage
        -fprofile-arcs -fstack-usage -fcallgraph-info* -fdump-* -d* -save-temps* --save-temps*
        -ftime-trace* -fsave-optimization-record* -foptimization-record-file=* -fopt-info*
        -aux-info* -time=* -fdiagnostics-format=* -dumpdir* -dumpbase* -dumpbase-ext* -MJ*
        --serialize-diagnostics* -serialize-diagnostics* -index-store-path -gen-cdb-fragment-path*
        -fada-spec-parent=* -fdump-go-spec=* -ftree-dump* -dependency-file -module-file-info
        -fcrash-diagnostics-dir=* -fproc-stat-report=* -fsave-main-file-name -gen-reproducer*
        -module-dependency-dir
        -fmultiple-object-format -fdriver-only -dxc-* -fexperimental-*""",
    "it reads another file": """-fprofile-use* -fprofile-generate* -fauto-profile*
        -fprofile-* -fbranch-probabilities -fcs-profile-* -fprofile-instr-use*
        -fprofile-sample-use* -fsanitize-ignorelist=* -fsanitize-blacklist=*
        -fsanitize-system-ignorelist=* -fsanitize-coverage-*list=* -fxray-*  -fprofile-list=*
        -frandomize-layout-seed-file=* -ivfsoverlay* -fembed-offload-object=* -fthinlto-index=*
        -fmodules* -fmodule-* -fno-modules* -fprebuilt-* -fbuild-session* -fpch-* -include-pch
        -fuse-init-array-file -fimplicit-module* -fopenmp-host-ir-file-path* -fapinotes*
        -fvtv-* -fmap-file* -flimited-precision=* -fvfs-* -fcuda-include-gpubinary
        -ftree-profile-file* --config* -fpreprocessed
        -fno-preprocessed -fdirectives-only -fno-directives-only -fbasic-block-sections=*
        -fms-volatile-file
        -fsanitize-coverage-allowlist=* -fsanitize-coverage-ignorelist=* -fcheck-data-deps-file
        -working-directory* -filelist -fdebug-compilation-dir -ftrapv-handler -meabi -mthread-model
        -multiply_defined* -main-file-name -fintrinsic-modules-path* -fnew-alignment""",
    "it runs or loads other programs": """-fplugin* -iplugindir* -fpass-plugin=* -specs* -wrapper
        -B* -no-integrated-cpp -Xclang* -mllvm* -gcc-toolchain* --gcc-toolchain* --gcc-install-dir*
        -load -plugin* -ccc-* -fintegrated-cc1 -fno-integrated-cc1 -foffload* -Xopenmp-target*
        -Xanalyzer -no-canonical-prefixes -resource-dir* -cuda-* --cuda-* --offload* --hip-*
        --rocm-* -fno-integrated-as -no-integrated-as -Xcuda-* -Xoffload-*""",
    "its messages depend on the source itself": """-Werror=misleading-indentation
        -fdiagnostics-generate-patch -fdiagnostics-absolute-paths -fuse-line-directives
        -frewrite-*""",
    "it depends on this machine's processor": "-march=native -mtune=native -mcpu=native",
    "the object would be another": """-flto* -fcompare-debug* -P -traditional -ffat-lto-objects
        -gcodeview* -gembed-source -gmodules -gsce -fembed-bitcode* -fdebug-cpp -fno-debug-cpp
        -fno-working-directory -fcoverage-mapping -fself-test*""",
}


def index_options():
    """Return {word of the tables above: (kind, reason)}. A loop over the words would add 0.1 ms
    to each start."""
    index = {}
    for kind, words in OPTIONS_BY_KIND.items():
        index.update(dict.fromkeys(words.split(), (kind, "")))
    for reason, words in REASONS_ELSEWHERE.items():
        index.update(dict.fromkeys(words.split(), (ELSEWHERE, reason)))
    return index


OPTION_INDEX = index_options()
LONGEST_OPTION = max(map(len, OPTION_INDEX))


def long_to_short(word):
    """Return (short option, joined argument or None) for a GNU long option, else (word, None).

    "--output=a.o" gives ("-o", "a.o"), "--output" gives ("-o", None)."""
    name, equals, argument = word.partition("=")
    if equals:
        short = LONG_OPTIONS.get(name + "=")
        return (short, argument) if short else (word, None)
    return LONG_OPTIONS.get(word) or LONG_OPTIONS.get(word + "=") or word, None


# PLAIN options whose argument is a path, but of which no file is opened.
PATH_OPTIONS = ("-ffile-prefix-map=", "-fdebug-prefix-map=", "-fmacro-prefix-map=",
                "-fcoverage-prefix-map=", "-fdebug-compilation-dir=")


# What a word may consist of that no table holds. No blank, slash, comma or @ is among these: they
# have a meaning to one or another of the programs that a compiler starts.
DECIMAL_DIGITS = frozenset("0123456789")
HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
NAME_CHARACTERS = LETTERS | DECIMAL_DIGITS | frozenset("_.$")
PLAIN_CHARACTERS = LETTERS | DECIMAL_DIGITS | frozenset("-_+.:=")


def names_no_file(word):
    """Tell whether no program takes a PLAIN word, or what it is handed of it, for a file's name.

    The assembler is handed the values of some options as words of their own, and expands one
    that begins with @."""
    if word.startswith(PATH_OPTIONS):
        return word[word.index("=") + 1:][:1] != "@"
    return "/" not in word and "@" not in word


def classify_option(word):
    """Return (kind, reason) of an option word; reason is "" but for ELSEWHERE.

    Words that no table holds are PLAIN in the shapes -fWORD, -mWORD, -mWORD=VALUE and -WWORD
    with nothing but PLAIN_CHARACTERS: both compilers keep them free of files. All else is
    UNKNOWN."""
    found = OPTION_INDEX.get(word)
    length = min(len(word), LONGEST_OPTION)
    while not found and length > 1:
        found = OPTION_INDEX.get(word[:length] + "*")
        length -= 1
    if found:
        return found if found[0] is not PLAIN or names_no_file(word) else (UNKNOWN, "")
    harmless = (word[:2] in ("-m", "-W") or word[:2] == "-f" and "=" not in word) \
        and len(word) > 2 and PLAIN_CHARACTERS.issuperset(word) and word not in SEPARATE_ARGUMENT
    return (PLAIN if harmless else UNKNOWN), ""


HARMLESS_ASSEMBLER_WORDS = frozenset("""
    --32 --64 --x32 --noexecstack --execstack --fatal-warnings --no-warn --warn -W --divide
    --strip-local-absolute --nocompress-debug-sections --compress-debug-sections
    --compress-debug-sections=none --compress-debug-sections=zlib --no-pad-sections
    --compress-debug-sections=zlib-gnu --compress-debug-sections=zlib-gabi --keep-locals -L
    --reduce-memory-overheads --size-check=error --size-check=warning --traditional-format
    --elf-stt-common=yes --elf-stt-common=no --generate-missing-build-notes=no
    --generate-missing-build-notes=yes --sectname-subst -J -R -n -q -s -O -O2 -w -x -X
    -mamd64 -mintel64 -mindex-reg -mnaked-reg -msse2avx -madd-bnd-prefix -mshared -mbig-obj
    -mbranches-within-32B-boundaries -mregnames -mno-regnames -maltivec -mvsx -mthumb
    -mthumb-interwork -mverbose-error -mno-verbose-error -mlittle-endian -mbig-endian
    -mno-warn-deprecated -mwarn-deprecated""".split())


def assembler_words_harmless(words):
    """Tell whether these arguments for the assembler name no file and make no listing.

    words: what stood between the commas of -Wa, or after -Xassembler. Of the options in -m only
    those pass that cannot take the next word: the ones listed, and those that have a value."""
    words = iter(words)
    for word in words:
        if word == "--defsym":
            if not defines_number(next(words, "")):
                return False
        elif word not in HARMLESS_ASSEMBLER_WORDS and not (
                word[:2] == "-m" and word.find("=") > 2 and PLAIN_CHARACTERS.issuperset(word)):
            return False
    return True


def defines_number(word):
    """Tell whether a word is NAME=NUMBER, as the assembler's --defsym takes it."""
    name, _, number = word.partition("=")
    digits = number[2:] if number[:2] in ("0x", "0X") else number
    return bool(name) and name[0] not in "0123456789" \
        and NAME_CHARACTERS.issuperset(name) and bool(digits) \
        and (HEX_DIGITS if digits is not number else DECIMAL_DIGITS).issuperset(digits)


# Languages by suffix, and what `-x` calls each when it is preprocessed.
LANGUAGE_OF_SUFFIX = {
    ".c": "c", ".i": "cpp-output", ".cc": "c++", ".cpp": "c++", ".cxx": "c++", ".cp": "c++",
    ".c++": "c++", ".C": "c++", ".CPP": "c++", ".ii": "c++-cpp-output", ".m": "objective-c",
    ".mi": "objective-c-cpp-output", ".mm": "objective-c++", ".M": "objective-c++",
    ".mii": "objective-c++-cpp-output", ".s": "assembler", ".S": "assembler-with-cpp",
    ".sx": "assembler-with-cpp"}
PREPROCESSED_FORM = {
    "c": "cpp-output", "c++": "c++-cpp-output", "objective-c": "objective-c-cpp-output",
    "objective-c++": "objective-c++-cpp-output", "assembler-with-cpp": "assembler"}
PREPROCESSED_LANGUAGES = frozenset(PREPROCESSED_FORM.values())


def language_of(source, compiler):
    """Return the language, as -x names it, that `compiler` takes the file for; None if unknown.

    A driver whose name says C++ (g++, c++, clang++, x86_64-linux-gnu-g++-12) takes .c and .i
    for C++ (gcc manual, "Compiling C++ Programs")."""
    base = source.rpartition("/")[2]
    suffix = base[base.rfind("."):] if "." in base else ""
    language = LANGUAGE_OF_SUFFIX.get(suffix)
    if "++" in compiler.rpartition("/")[2] and language in ("c", "cpp-output"):
        language = "c++" if language == "c" else "c++-cpp-output"
    return language


# -------------------------------------------------------------------------------------------
# Constants and errors
# RunLocally HostFailed Interrupted WaitedLongEnough Fatal
# -------------------------------------------------------------------------------------------

DEFAULT_LIMIT = 4                       # slots of a volunteer that names no limit
MOST_SLOTS = 1000
MOST_HOSTS_BYTES = 1024 * 1024
CONNECT_TIMEOUT_S = 4.0                 # for each address of a host
READ_AHEAD_BYTES = 64 * 1024            # of a reply: as a rule all of it
IO_TIMEOUT_S = 300.0
MOST_SECONDS = 1e6                      # in a setting: poll() takes 31 bits of milliseconds
KEEPALIVE = (30, 10, 3)                 # seconds until a probe, between probes, and their number
LEAST_BYTES_PER_S = 1000                # of a volunteer that has begun to answer
REPLY_WINDOW_S = 60.0                   # over which that is reckoned
BACKOFF_PERIOD_S = 60.0
SLOT_POLL_S = 0.02                      # how often the first in the queue looks for a slot
LOCAL_POLL_S = 0.004                    # the same for this machine, whose jobs are short
MOST_WAITERS_COUNTED = 100
TURN_S = 20.0                           # then a waiter looks for itself: the first may be stopped
LOCAL_WAIT_S = 60.0                     # then a job runs here, slot or none
ENDING_SIGNALS = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)


class RunLocally(Exception):
    """The command runs here, and nobody is at fault.

    `has_slot` tells whether this process holds a slot of this machine already."""

    def __init__(self, reason, has_slot=False):
        """reason: one line for DISTCC_VERBOSE; has_slot: see the class."""
        super().__init__(reason)
        self.has_slot = has_slot


class HostFailed(Exception):
    """A volunteer could not do the job: `code` is the exit code that names the kind of fault.

    `reached` is false while nothing was sent, so that another volunteer may be asked;
    `refused` is true when the volunteer itself gave the reason and is in good health; `is_known`
    when the user has been told already."""

    def __init__(self, code, reason, reached=True, refused=False, is_known=False):
        """code: EXIT_…; reason: one line; the others: see the class."""
        super().__init__(reason)
        self.code, self.reached, self.refused, self.is_known = code, reached, refused, is_known


class Interrupted(BaseException):
    """A signal asks us to end: `signal_number` is passed on once everything is tidy."""

    def __init__(self, signal_number):
        """signal_number: SIGINT, SIGTERM or SIGHUP."""
        super().__init__(signal_number)
        self.signal_number = signal_number


class WaitedLongEnough(Exception):
    """The alarm of a bounded wait went off."""


class Fatal(Exception):
    """distcc cannot even run the compiler here: `code` is the exit code, the text says why."""

    def __init__(self, code, reason):
        """code: EXIT_…; reason: one line."""
        super().__init__(reason)
        self.code = code


# -------------------------------------------------------------------------------------------
# Names: what `os` and `os.path` have and `posix` has not
# fsencode fsdecode setting mode_at begins_with is_directory same_file end_of_links
# -------------------------------------------------------------------------------------------

DEFAULT_PATH = "/bin:/usr/bin"          # as os.defpath
MOST_LINKS = 40                         # in a chain, as Linux has it


def fsencode(text):
    """Return the bytes of a name or argument, as os.fsencode does."""
    return text.encode(sys.getfilesystemencoding(), "surrogateescape")


def fsdecode(name):
    """Return bytes of the system as text that fsencode turns back into them."""
    return name.decode(sys.getfilesystemencoding(), "surrogateescape")


def setting(name):
    """Return a variable of the environment that we were started with; None if it is not set."""
    value = posix.environ.get(name.encode())
    return None if value is None else fsdecode(value)


def mode_at(path, follow_links=True):
    """Return the st_mode of what is at path; 0 if there is nothing that we could see."""
    try:
        return posix.stat(path, follow_symlinks=follow_links).st_mode
    except (OSError, ValueError):
        return 0


def begins_with(path, beginning):
    """Tell whether the file at path begins with these bytes; false if it cannot be read."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK)
        try:
            return posix.read(descriptor, len(beginning)) == beginning
        finally:
            posix.close(descriptor)
    except OSError:
        return False


def is_directory(path):
    """Tell whether path leads to a directory."""
    return stat.S_ISDIR(mode_at(path))


def same_file(first, second):
    """Tell whether two results of stat are of one file."""
    return (first.st_ino, first.st_dev) == (second.st_ino, second.st_dev)


def end_of_links(path):
    """Return the path that a chain of symbolic links leads to."""
    for _ in range(MOST_LINKS):
        try:
            link = posix.readlink(path)
        except OSError:
            break
        path = link if link[:1] == "/" else path[:path.rfind("/") + 1] + link
    return path


# -------------------------------------------------------------------------------------------
# Messages: distcc's own lines, each one write, never mixed into the compiler's
# printable say warn notice debug
# -------------------------------------------------------------------------------------------

def printable(text):
    """Return text as one line for a terminal or log: control characters are escaped."""
    return "".join(char if char.isprintable() or 0xdc80 <= ord(char) <= 0xdcff
                   else char.encode("unicode_escape").decode() for char in text)


def write_fully(descriptor, data):
    """Write all bytes of data; a reader that left (EPIPE and the like) is no error."""
    view = memoryview(data)
    while view:
        try:
            view = view[posix.write(descriptor, view):]
        except OSError:
            return


def say(text):
    """Write one line of our own to DISTCC_LOG, or else to stderr."""
    line = fsencode("distcc[%d] %s\n" % (posix.getpid(), printable(text)))
    log = setting("DISTCC_LOG")
    if log:
        try:
            descriptor = posix.open(log, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT
                                    | posix.O_NONBLOCK, 0o666)      # a pipe that nobody reads
        except OSError as error:
            posix.environ[b"DISTCC_LOG"] = b""
            warn("cannot open the log %s: %s; messages go to stderr" % (log, error.strerror))
        else:
            write_fully(descriptor, line)
            posix.close(descriptor)
            return
    write_fully(2, line)


def warn(text):
    """Say what went wrong: always shown."""
    say("warning: " + text)


def notice(text):
    """Say where a job runs: on a terminal or in the log only, for others read stderr too."""
    wish = setting("DISTCC_VERBOSE")
    if wish == "1" or setting("DISTCC_LOG") or wish != "0" and posix.isatty(2):
        say(text)


def debug(text):
    """Say what only DISTCC_VERBOSE=1 shows."""
    if setting("DISTCC_VERBOSE") == "1":
        say(text)


# -------------------------------------------------------------------------------------------
# Entries: what of this machine's file system goes into a job
# trace_path pack_directory pack_link pack_file signature_of read_settled Lister
#
# Paths are bytes here, as the kernel has them. A canonical path is absolute and leads through no
# link and no "..". A signature changes whenever a file does: the time of its last change cannot
# be set by anybody, so not even a copy that keeps size and time goes unseen.
# -------------------------------------------------------------------------------------------

YOUNG_NS = 50 * 1000 * 1000             # the clock of file systems ticks every 4 or 10 ms ...
YOUNG_IN_SECONDS_NS = 2 * 1000 * 1000 * 1000    # ... or, in old ones, once or twice in 2 s
READS_OF_CHANGING_FILE = 5
NEVER_EQUAL = ()                        # the signature of what was too young to be sure of


def trace_path(base, path, known):
    """Follow path from the canonical directory base, as the kernel does.

    Returns (end, way, missing): a canonical path; the list of (canonical path, target) of each
    link on the way and of each directory that is left by "..", whose target is b""; and the name
    that is not there, or b"". If something is missing, end is the directory that lacks it; if
    links lead in a circle, end is one of them. known, which grows: {canonical path: link target,
    b"" for what is no link, False for what is missing}."""
    base = b"" if path[:1] == b"/" or base == b"/" else base
    names = path.split(b"/")[::-1]
    way = []
    links = 0
    while names:
        name = names.pop()
        if not name or name == b".":
            continue
        if name == b"..":
            way.append((base or b"/", b""))
            base = base[:max(base.rfind(b"/"), 0)]
            continue
        child = base + b"/" + name
        target = known.get(child)
        if target is None:
            try:
                target = look_for_link(child)
            except OSError:
                return base or b"/", way, name
            known[child] = target
        if target is False:
            return base or b"/", way, name
        if not target:
            base = child
            continue
        way.append((child, target))
        links += 1
        if links > MOST_LINKS:
            return child, way, b""
        names.extend(target.split(b"/")[::-1])
        base = b"" if target[:1] == b"/" else base
    return base or b"/", way, b""


def look_for_link(path):
    """Return the target of the link at path, b"" if something else is there; raises OSError."""
    return posix.readlink(path) if stat.S_ISLNK(posix.lstat(path).st_mode) else b""


def parent_of(path):
    """Return the directory of an absolute path."""
    return path[:path.rfind(b"/")] or b"/"


def pack_directory(path):
    """Return the entry of a directory."""
    return b"d\0%s\0" % path


def pack_link(path, target):
    """Return the entry of a symbolic link."""
    return b"s%s\0%s\0" % (target, path)


def pack_waypoint(path, target):
    """Return the entry of one thing on the way of trace_path."""
    return pack_link(path, target) if target else pack_directory(path)


def pack_file(path, kind, digest, size, status):
    """Return the entry of a file. kind: b"-", b"x" or b"l"; status: of stat.

    Two file systems may use one inode number; the device in its upper bits keeps them apart."""
    inode = (status.st_ino ^ status.st_dev << 44) & 0xffffffffffffffff
    return b"f%s %s %x %d %x\0%s\0" % (kind, digest, size, status.st_mtime_ns, inode, path)


def signature_of(status):
    """Return what changes when a file or directory does. status: of stat."""
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)


def settled_signature(status):
    """Return the signature; NEVER_EQUAL if a further change could leave it as it is, because
    the clock of the file system has not moved on since the last one."""
    import time
    changed_ns = status.st_ctime_ns
    whole_seconds = changed_ns % 1000000000 == 0
    young_ns = YOUNG_IN_SECONDS_NS if whole_seconds else YOUNG_NS
    now_ns = time.time_ns()
    if abs(now_ns - changed_ns) < young_ns or abs(now_ns - status.st_mtime_ns) < young_ns:
        return NEVER_EQUAL
    return signature_of(status)


def read_settled(path):
    """Return (content, status) of a regular file that did not change while it was read.

    Raises OSError: there is none, it is too large, or it never comes to rest."""
    for _ in range(READS_OF_CHANGING_FILE):
        if not stat.S_ISREG(posix.stat(path).st_mode):  # a pipe's writer would take us for the
            raise OSError(None, "not a regular file", path)             # compiler, and be gone
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK)
        try:
            before = posix.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(None, "not a regular file", path)
            if before.st_size > MAX_FILE_BYTES:
                raise OSError(None, "too large", path)
            content = read_to_end(descriptor, before.st_size)
            after = posix.fstat(descriptor)
        finally:
            posix.close(descriptor)
        if signature_of(after) == signature_of(before) and len(content) == after.st_size:
            return content, after
    raise OSError(None, "changes while it is read", path)


def read_to_end(descriptor, expected=65536):
    """Return all bytes of a file or pipe; expected: how many there should be."""
    pieces = []
    while True:
        piece = posix.read(descriptor, expected + 1)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        if len(piece) == expected:      # a file of this size; the next read must be the end
            expected = 4095


class Lister:
    """The entries that one job has for itself, each path once.

    cwd: canonical path of the working directory; known: what trace_path has learnt."""

    def __init__(self, cwd):
        """cwd: bytes, absolute, perhaps through links. Raises OSError."""
        self.known = {}
        self.entries = {}               # canonical path: entry
        self.paths = {}                 # digest: canonical paths of files with that content
        self.cwd = b"/"
        self.cwd = self.add(cwd)

    def follow(self, path):
        """Return the canonical path of what path leads to, for which it makes no entry; but what
        is on the way gets one. Raises OSError if something is missing."""
        end, way, missing = trace_path(self.cwd, path, self.known)
        for waypoint, target in way:
            self.entries.setdefault(waypoint, pack_waypoint(waypoint, target))
        if missing or self.known.get(end):      # or a link of a circle
            raise FileNotFoundError(None, "not found", path)
        return end

    def add(self, path, kind=b"-"):
        """Add the file or directory that path leads to, and what is on the way.

        Returns its canonical path; raises OSError if there is nothing to list."""
        end = self.follow(path)
        if end not in self.entries:
            if is_directory(end):
                self.entries[end] = pack_directory(end)
            else:
                self.read(end, kind)
        return end

    def read(self, path, kind=b"-"):
        """Add a file as add() does; return (its content, its digest). Raises OSError."""
        end = self.follow(path)
        content, status = read_settled(end)
        digest = digest_of(content)
        self.add_known(end, kind, digest, status)
        return content, digest

    def add_known(self, path, kind, digest, status):
        """Add the file at a canonical path whose digest and status are known."""
        if path not in self.entries:
            self.paths.setdefault(digest, []).append(path)
        self.entries[path] = pack_file(path, kind, digest, status.st_size, status)

    def add_emptied(self, path):
        """Add a file that will only be written: its name counts, its content does not.

        Returns its canonical path; raises OSError if there is none."""
        end = self.follow(path)
        if end not in self.entries:
            status = posix.stat(end)
            if stat.S_ISDIR(status.st_mode):
                self.entries[end] = pack_directory(end)
            else:
                self.entries[end] = pack_file(end, b"-", digest_of(b""), 0, status)
        return end

    def page(self):
        """Return all entries, one after the other."""
        return b"".join(self.entries.values())


def paths_in_pages(files):
    """Return {digest: [path]} of the files that a FileList or Inputs refers to: not all that its
    pages name are part of the job."""
    paths = {}
    for page, mask in files.references:
        fields = files.pages[page].split(b"\0")
        for place, (head, path) in enumerate(zip(fields[::2], fields[1::2])):
            if head[:1] == b"f" and mask >> place & 1:
                paths.setdefault(head.split(b" ")[1], []).append(path)
    return paths


# -------------------------------------------------------------------------------------------
# Headers: which files a source may include
# scan_includes find_definitions memory_directory SearchConfiguration HeaderMemory Addition Inputs
# Roots find_inputs ask_compiler
#
# The compiler is not asked. A source is searched for includes without regard to conditionals;
# each file that these lead to is searched once and remembered, in a file for each search
# configuration: all that decides where the compiler looks for headers. What holds:
#   - Each header, each link on the way to one and each directory that matters is a *record*; the
#     memory numbers them as they come. Record i is bit i of every closure, and entry i % 64 of
#     page i / 64. A record keeps its number as long as the memory lives.
#   - A *node* is a file under a name, for what it includes depends on the directory that it was
#     found in. Its closure has the bits of all records that it may need, itself and those that its
#     includes lead to.
#   - A closure has also the directories in which something was looked for in vain. If one has
#     changed and what was missed is there now, the memory is thrown away; likewise if a file is
#     gone, or includes something else than before. This is rare; adding to a memory is not.
#   - Each job looks at every record of its closure: a stat each. So nothing is trusted that may
#     have changed since.
#   - The memory is a file of chunks. Whoever has something to add holds the lock, reads what the
#     others have added meanwhile, and appends one chunk. A chunk that is cut short or garbled does
#     not count, nor do those after it; the next writer replaces the file.
# -------------------------------------------------------------------------------------------

MOST_MEMORY_BYTES = 32 * 1024 * 1024
MOST_MEMORIES = 256                     # files in the directory
MOST_CHUNKS = 24                        # then they are made one
MOST_RESTARTS = 5
MEMORY_WAIT_S = 30.0                    # for the lock; then a job does without the memory
MOST_SHADOWS = 8192                     # lookups for the sake of includes that none can resolve
SETTLED_NS = 2 * 1000 * 1000 * 1000     # a directory that has not changed for so long is at rest

# What a scan finds begins with one of these, and goes on with the name.
QUOTED, ANGLED, NEXT = b'"', b"<", b">" # NEXT: #include_next, with either kind of quotes
MACRO = b"$"                            # the name is that of a macro
ASSEMBLED = b"%"                        # .include and .incbin: looked for by the assembler
UNCERTAIN = b"?"                        # what a macro may stand for, and a scan cannot tell
EXTRA = b"M"                            # what the compiler itself named for a source
PRECOMPILED = b".gch"
BLANK = b" \t\v\f\r"
DIRECTIVE_MARKS = (b"#", b"%:", b"??=", b"/*")
NAME_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"


def scan_includes(text):
    """Return what a source or header may include, each once: a tuple of form byte + name.

    Conditionals and comments are not regarded, so there may be more than the compiler sees."""
    text = without_splices(text)
    found = {}
    for word in (b"include", b"import", b"embed", b"incbin", b"GCC dependency"):
        if word in text:
            scan_for(text, word, found)
    scan_directives(text, found)
    return tuple(found)


def scan_directives(text, found):
    """Add to the dictionary `found` what conditions and line markers name: in a condition a macro
    may stand for __has_include, and of the files of line markers messages show lines."""
    at = text.find(b"#")
    while at >= 0:
        word = text[at + 1:at + 12].lstrip(b" \t")
        if word.startswith((b"if", b"elif")):
            end = text.find(b"\n", at)
            line = text[at:end if end >= 0 else len(text)]
            for opening in (b"(<", b'("'):
                place = line.find(opening)
                while place >= 0:
                    if not line.endswith(b"_next", 0, place):   # which scan_for has seen
                        add_name(line, place + 1, False, found)
                    place = line.find(opening, place + 2)
        elif word.startswith(b"line ") or word[:1].isdigit():
            name = at + 1 if word[:1].isdigit() else text.find(b"line", at) + 4
            add_assembled(text, name, found)
        at = text.find(b"#", at + 1)


def without_splices(text):
    """Return text with lines that end in a backslash joined to the next one."""
    if b"\\\n" in text or b"\\\r\n" in text:
        return text.replace(b"\\\n", b"").replace(b"\\\r\n", b"")
    return text


def scan_for(text, word, found):
    """Add to the dictionary `found` what follows each directive or operator `word` in text."""
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        start = at - 1
        while start >= 0 and text[start] in BLANK:
            start -= 1
        before = text[start:start + 1]
        if before == b"#" or before in b":=/" and follows_hash(text, start) or word[:1] == b"G":
            is_next = text.startswith(b"_next", end)
            add_name(text, end + 5 * is_next, is_next, found)
        elif before == b".":
            add_assembled(text, end, found)
        elif before == b"_" and text.endswith(b"__has_", 0, at):
            is_next = text.startswith(b"_next", end)
            opening = skip_blanks(text, end + 5 * is_next)
            if text.startswith(b"(", opening):
                add_name(text, opening + 1, is_next, found)
        at = text.find(word, end)


def follows_hash(text, start):
    """Tell whether a # in one of its spellings ends at text[start], but for comments."""
    while start > 0:
        before = text[start:start + 1]
        if before == b"#" or before == b":" and text[start - 1:start] == b"%":
            return True
        if before == b"=" and text[max(start - 2, 0):start] == b"??":
            return True
        if before == b"/" and text[start - 1:start] == b"*":
            start = text.rfind(b"/*", max(start - MAX_PATH_BYTES, 0), start - 1)
        elif before not in BLANK:
            return False
        start -= 1
    return text[:1] == b"#" and start == 0


def skip_blanks(text, at):
    """Return where blanks and comments after text[at] end."""
    while True:
        while text[at:at + 1] in (b" ", b"\t", b"\v", b"\f"):
            at += 1
        if not text.startswith(b"/*", at):
            return at
        end = text.find(b"*/", at + 2, at + MAX_PATH_BYTES)
        if end < 0:
            return at
        at = end + 2


def add_name(text, at, is_next, found):
    """Add the file or macro that text names at this place to the dictionary found."""
    first = text[at:at + 1]
    if first not in (QUOTED, ANGLED):
        at = skip_blanks(text, at)
        first = text[at:at + 1]
    if first == QUOTED or first == ANGLED:
        end = text.find(QUOTED if first == QUOTED else b">", at + 1, at + 1 + MAX_PATH_BYTES)
        name = text[at + 1:end]
        if end > at + 1 and b"\n" not in name and b"\0" not in name:
            found[(NEXT if is_next else first) + name] = None
    else:
        name = word_at(text, at)
        after = skip_blanks(text, at + len(name))
        line = text[beginning_of_line(text, at):at].lstrip(BLANK)
        if name and text[after:after + 1] in b"\n\r()/" and line.startswith(DIRECTIVE_MARKS):
            found[MACRO + name] = None          # anything else is prose, in a comment


def beginning_of_line(text, at):
    """Return where the line of text[at] begins; of a very long one, where its last part does."""
    far = max(at - MAX_PATH_BYTES, 0)
    return text.rfind(b"\n", far, at) + 1 or far


def word_at(text, at):
    """Return the identifier that begins at text[at]; b"" if none does."""
    end = at
    while text[end:end + 1] and text[end] in NAME_BYTES and end < at + MAX_PATH_BYTES:
        end += 1
    return b"" if text[at:at + 1].isdigit() else text[at:end]


def add_assembled(text, at, found):
    """Add the file that an assembler's directive names, perhaps inside a string of C."""
    start = text.find(QUOTED, at, at + 20)
    between = text[at:start].replace(b"\\t", b"")      # in a line marker its number
    if start < 0 or between.strip(b" \t\\0123456789") or text[start + 1:start + 2] == b"<":
        return
    end = text.find(QUOTED, start + 1, start + 1 + MAX_PATH_BYTES)
    name = text[start + 1:end].rstrip(b"\\")
    if end > 0 and name and b"\n" not in name and b"\0" not in name:
        found[ASSEMBLED + name] = None


def find_definitions(text, names):
    """Return {name: set of what it may stand for in an #include}, for the macros in `names` that
    text defines: form byte + name, as scan_includes has it, and UNCERTAIN if that is not all."""
    text = without_splices(text)
    found = {}
    for name in names:
        at = text.find(name)
        while at >= 0:
            line = text[beginning_of_line(text, at):at].strip(BLANK)
            if line.endswith(b"define") and line.startswith(DIRECTIVE_MARKS) \
                    and word_at(text, at) == name:
                found.setdefault(name, set()).update(values_at(text, at + len(name)))
            at = text.find(name, at + len(name))
    return found


def values_at(text, at):
    """Return what a macro may stand for whose name ends before text[at]."""
    has_parameters = text[at:at + 1] == b"(" and text[at + 1:at + 2] != b")"
    if text[at:at + 1] == b"(":
        at = text.find(b")", at) + 1
    at = skip_blanks(text, at)
    values = {}
    add_name(text, at, False, values)
    is_plain = all(value[:1] != ANGLED for value in values)     # macros count between < and >
    if has_parameters or not is_plain or not values and text[at:at + 1].strip():
        values[UNCERTAIN] = None
    return values


def memory_directory(environment):
    """Return the directory of memories, made if need be and private. Raises OSError."""
    cache = environment.get("XDG_CACHE_HOME", "")
    if cache[:1] != "/":
        home = environment.get("HOME", "")
        if home[:1] != "/":
            return work_directory(environment)
        cache = home + "/.cache"
    path = cache + "/distcc.py"
    if path not in SAFE_DIRECTORIES:
        try:
            if not mode_at(cache):
                import os
                os.makedirs(cache, 0o700, exist_ok=True)
            SAFE_DIRECTORIES.add(private_directory(path, shared=False))
        except OSError as error:        # builds of packages have a home that is not there
            debug("%s cannot be used: %s" % (path, error.strerror))
            return work_directory(environment)
    return path


# Options with a directory, which may be joined to them, and variables that name directories.
DIRECTORY_OPTIONS = ("-I", "-isystem", "-iquote", "-idirafter", "-cxx-isystem", "-c-isystem",
                     "-isysroot", "--sysroot=", "--sysroot", "-F", "-iframework", "-B")
PATH_VARIABLES = ("GCC_EXEC_PREFIX", "COMPILER_PATH", "CPATH", "C_INCLUDE_PATH",
                  "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "OBJCPLUS_INCLUDE_PATH")


class SearchConfiguration:
    """All that decides where a compiler looks for headers.

    compiler: path for exec; argv0: its name; language: for -x; words: options for the
    preprocessor; environment: of the compiler; lister: of the job; identity: bytes that change
    when the compiler does."""

    def __init__(self, compiler, argv0, identity, language, words, environment, lister):
        """See the class; adds to lister what is on the way to the directories named."""
        self.compiler, self.argv0, self.language = compiler, argv0, language
        self.words, self.environment, self.cwd = words, environment, lister.cwd
        parts = [identity, fsencode(compiler), fsencode(argv0), language.encode()]
        parts += [fsencode(word) for word in canonical_words(words, lister)]
        for name in PATH_VARIABLES:
            value = environment.get(name)
            if value is not None:
                parts += [name.encode()] + [canonical_name(directory or ".", lister)
                                            for directory in value.split(":")]
        self.key = digest_of(b"\0".join(parts))

    def ask_search_path(self):
        """Return (number of directories for quotes alone, directories, missing directories), as
        the compiler names them. Raises OSError if it does not say."""
        argv = [self.argv0] + self.words + ["-v", "-E", "-x", self.language, "/dev/null"]
        said, _ = run_quietly(self.compiler, argv, self.environment, 2)
        return parse_search_path(said)


def canonical_words(words, lister):
    """Yield option words with the directories that they name made canonical: equal for commands
    that run in several directories but search the same ones. The working directory joins them if
    some other word may depend on it."""
    words = iter(words)
    for word in words:
        option = next((option for option in DIRECTORY_OPTIONS if word.startswith(option)), None)
        if option is None:
            yield word
            if word[:1] != "-" or word.startswith("-i") or "/" in word:
                yield fsdecode(lister.cwd)
            continue
        directory = word[len(option):] or next(words, "")
        yield option
        if directory[:1] in ("=", "$"):         # in the system root
            yield directory
        else:
            yield fsdecode(canonical_name(directory, lister))


def canonical_name(directory, lister):
    """Return a directory's canonical path; the name as it is, made absolute, if it is missing."""
    name = fsencode(directory)
    try:
        return lister.follow(name)
    except OSError:
        return lister.cwd + b"/" + name if name[:1] != b"/" else name


def run_quietly(path, argv, environment, wanted):
    """Run a program in the C locale; return what it wrote to descriptor `wanted`, 1 or 2, and its
    wait status. Raises OSError if it cannot be started."""
    reading, writing = posix.pipe()
    null = posix.open("/dev/null", posix.O_WRONLY)
    try:
        child = spawn(path, argv, dict(environment, LC_ALL="C"),
                      *((writing, null) if wanted == 1 else (null, writing)))
        posix.close(writing)
        writing = -1
        said = read_to_end(reading)
        return said, posix.waitpid(child, 0)[1]
    finally:
        for descriptor in (reading, writing, null):
            if descriptor >= 0:
                posix.close(descriptor)


def parse_search_path(said):
    """Return what ask_search_path does, from what the compiler said under -v."""
    quoted, directories, missing = 0, [], []
    inside = False
    for line in said.split(b"\n"):
        if line.startswith(b'ignoring nonexistent directory "'):
            missing.append(line[32:].rstrip(b'"'))
        elif line.startswith(b"#include <...>"):
            quoted = len(directories)
            inside = True
        elif line.startswith(b'#include "..."'):
            inside = True
        elif line.startswith(b"End of search list"):
            return quoted, directories, missing
        elif inside and line.startswith(b" ") and not line.endswith(b"(framework directory)"):
            directories.append(line[1:])
    raise OSError(None, "the compiler does not say where it looks for headers")


class Outdated(Exception):
    """The memory says what is no longer so, and must be begun anew."""


class HeaderMemory:
    """What is known of the headers of one search configuration; begins empty.

    search: None or (number of directories for quotes alone, directories, closure of what must
    stay as it is for that); pages: {index: marshal of (digest, entries, signatures, checksums of
    what was scanned)}; lookups: {key: closure} of what sources include; watches: {record of a
    directory: names missed there, each ended by a zero byte}; late: {include: tuple of
    (record of the file that has it, directory of that)} for what depends on macros or the working
    directory, and so on the job; values: {macro: tuple of what it may stand for}; old_nodes:
    marshals of {node: closure}. A closure is stored as bytes, lowest first."""

    def __init__(self, directory, configuration):
        """directory: private, as text, or None for a memory that is not kept."""
        self.configuration = configuration
        self.path = directory and "%s/%s" % (directory, configuration.key.decode())
        self.load()

    def forget(self):
        """Become empty."""
        self.search = None
        self.pages, self.lookups, self.watches = {}, {}, {}
        self.late, self.values = {}, {}
        self.old_nodes = []
        self.chunks = self.valid_bytes = 0

    def load(self):
        """Become what the file holds, as far as it is whole."""
        self.forget()
        try:
            descriptor = posix.open(self.path or "", posix.O_RDONLY)
        except OSError:
            return
        try:
            size = posix.fstat(descriptor).st_size
            data = memoryview(read_to_end(descriptor, size) if size <= MOST_MEMORY_BYTES else b"")
        except OSError:
            return
        finally:
            posix.close(descriptor)
        while self.take_chunk(data):
            pass

    def take_chunk(self, data):
        """Add what the next chunk of the file's data holds; false if there is none."""
        hot, cold = unpack_chunk(data, self.valid_bytes)
        if hot is None:
            return False
        import marshal
        try:
            search, pages, lookups, watches, late, values = marshal.loads(hot)
        except (ValueError, TypeError, EOFError):       # whole, but by another version
            return False
        self.search = search or self.search
        self.pages.update(pages)
        self.lookups.update(lookups)
        self.late.update(late)
        self.values.update(values)
        for record, names in watches.items():
            self.watches[record] = self.watches.get(record, b"") + names
        self.old_nodes.append(cold)
        self.chunks += 1
        self.valid_bytes += CHUNK_HEADER_BYTES + len(hot) + len(cold)
        return True

    def closure_of(self, roots):
        """Return (closure of a job, keys of lookups that are not known). roots: Roots."""
        if not self.search:
            return 0, roots.keys
        closure = int.from_bytes(self.search[2], "little")
        unknown = []
        done = set()
        keys = roots.keys + [key for key in roots.extras if key in self.lookups]
        while keys:
            for key in keys:
                found = self.lookups.get(key)
                if found is None:
                    unknown.append(key)
                else:
                    closure |= int.from_bytes(found, "little")
            if not self.late and not roots.late:
                break
            done.update(keys)
            keys = [key for key in roots.late_keys(self, closure) if key not in done]
        return closure, unknown

    def page(self, index):
        """Return (digest, entries, signatures, checksums) of a page."""
        import marshal
        return marshal.loads(self.pages[index])

    def paths_in(self, closure):
        """Yield the paths of the records of a closure."""
        for index, mask in masks_of(closure):
            fields = self.page(index)[1].split(b"\0")
            for place in range(len(fields) // 2):
                if mask >> place & 1:
                    yield fields[2 * place + 1]

    def changes(self, closure):
        """Yield (record, path, status) of what is not as it was: status is None for what the
        memory cannot outlive."""
        for index, mask in masks_of(closure):
            if index not in self.pages:
                continue
            _, entries, signatures, _ = self.page(index)
            fields = entries.split(b"\0")
            for place in range(len(signatures)):
                if mask >> place & 1:
                    head, path = fields[2 * place], fields[2 * place + 1]
                    record = PAGE_ENTRIES * index + place
                    try:
                        if head[0] == 115:                                      # "s": a link
                            if posix.readlink(path) != head[1:]:
                                yield record, path, None
                            continue
                        status = posix.lstat(path)
                    except OSError:
                        yield record, path, None
                        continue
                    if signature_of(status) != signatures[place]:
                        if head[0] == 100 and self.has_appeared(record, path):  # "d"
                            status = None
                        yield record, path, status

    def has_appeared(self, record, path):
        """Tell whether a directory has something now that was missed there."""
        if path.endswith(PRECOMPILED):
            return True
        path = path.rstrip(b"/") + b"/"
        for name in self.watches.get(record, b"").split(b"\0"):
            if name and posix.access(path + name, posix.F_OK, follow_symlinks=False):
                return True
        return False

    def recall(self, roots):
        """Return the Inputs of a job if all is known and as it was; else None. roots: Roots."""
        closure, unknown = self.closure_of(roots)
        if unknown:
            return None
        import time
        for _, _, status in self.changes(closure):
            if status is None or not stat.S_ISDIR(status.st_mode) \
                    or abs(time.time_ns() - status.st_mtime_ns) > SETTLED_NS:
                return None
        return Inputs(self, closure, roots.is_certain)

    def learn(self, roots, extras=()):
        """Return the Inputs of a job; what is new or has changed is remembered.

        roots: Roots; extras: (key of a source, names that the compiler itself gave) or nothing.
        Raises OSError."""
        lock = open_memory_lock(self.path)
        try:
            self.load()
            for _ in range(MOST_RESTARTS):
                addition = Addition(self)
                try:
                    closure = addition.learn(roots, extras)
                    addition.renew(closure)
                except Outdated:
                    self.forget()
                    continue
                parts = addition.commit()
                if lock >= 0:
                    self.save(*parts)
                return Inputs(self, closure, roots.is_certain, addition.fresh)
        finally:
            if lock >= 0:
                posix.close(lock)
        raise OSError(None, "the headers change all the time")

    def save(self, hot, cold):
        """Append a chunk of these parts to the file, or write it anew; troubles are no matter,
        for then the next job adds it again."""
        try:
            size = mode_at(self.path) and posix.stat(self.path).st_size
            if size == self.valid_bytes and 0 < self.chunks < MOST_CHUNKS:
                descriptor = posix.open(self.path, posix.O_WRONLY | posix.O_APPEND)
                offset = size
            else:
                hot, cold = self.parts()
                offset = 0
                descriptor = posix.open(self.path + ".new", posix.O_WRONLY | posix.O_CREAT
                                        | posix.O_TRUNC | posix.O_NOFOLLOW, 0o600)
            chunk = pack_chunk(hot, cold, offset)
            try:
                if posix.write(descriptor, chunk) != len(chunk):
                    raise OSError(None, "the disk is full")
            finally:
                posix.close(descriptor)
            if not offset:
                posix.rename(self.path + ".new", self.path)
                self.chunks = 0
                if not size:
                    prune_memories(parent_of(fsencode(self.path)))
            self.chunks += 1
            self.valid_bytes = offset + len(chunk)
        except OSError as error:
            debug("the memory of headers is not kept: %s" % error.strerror)

    def parts(self):
        """Return the memory as the parts of one chunk."""
        import marshal
        nodes = {}
        for part in self.old_nodes:
            nodes.update(marshal.loads(part))
        return marshal.dumps((self.search, self.pages, self.lookups, self.watches, self.late,
                              self.values), 2), marshal.dumps(nodes, 2)


def prune_memories(directory):
    """Remove the memories of a directory (bytes) that were written longest ago, if they are too
    many. Whoever holds one of their locks can only lose what it adds: a chunk in the wrong place
    does not count."""
    names = [name for name in posix.listdir(directory) if len(name) == DIGEST_DIGITS]
    if len(names) > MOST_MEMORIES:
        paths = [directory + b"/" + name for name in names]
        paths.sort(key=lambda path: posix.stat(path).st_mtime_ns)
        for path in paths[:MOST_MEMORIES // 2]:
            posix.unlink(path)
            posix.unlink(path + b".lock")


def open_memory_lock(path):
    """Return a descriptor that holds the lock of a memory, once it is free; -1 if there can be
    none, or if it is not free for long: who holds it may have been stopped."""
    if not path:
        return -1
    descriptor = -1
    try:
        descriptor = posix.open(path + ".lock", posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW,
                                0o600)
        wait_for_lock(descriptor, MEMORY_WAIT_S)
        return descriptor
    except (OSError, WaitedLongEnough) as error:
        debug("the memory of headers is not kept: %s" % (error or "its lock is held for long"))
        if descriptor >= 0:
            posix.close(descriptor)
        return -1


def wait_for_lock(descriptor, seconds):
    """Lock a file; raises WaitedLongEnough, or OSError where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    previous = _signal.signal(_signal.SIGALRM, on_alarm)
    try:
        _signal.setitimer(_signal.ITIMER_REAL, seconds)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        _signal.setitimer(_signal.ITIMER_REAL, 0)
        _signal.signal(_signal.SIGALRM, previous)


def masks_of(closure):
    """Yield (index of a page, mask of its records) for each page of which a closure has some."""
    data = closure.to_bytes((closure.bit_length() + 63) // 64 * 8, "little")
    for index in range(len(data) // 8):
        mask = int.from_bytes(data[8 * index:8 * index + 8], "little")
        if mask:
            yield index, mask


# A chunk: magic, its offset in the file, then for each of its two parts length and CRC; the parts.
# The magic changes with the layout of what is in there.
CHUNK_MAGIC = b"dcchead2"
CHUNK_HEADER_BYTES = 28


def pack_chunk(hot, cold, offset):
    """Return a chunk: what every job needs, and what only those need that add something."""
    import zlib
    numbers = (offset, len(hot), zlib.crc32(hot), len(cold), zlib.crc32(cold))
    return CHUNK_MAGIC + b"".join(number.to_bytes(4, "little") for number in numbers) + hot + cold


def unpack_chunk(data, offset):
    """Return (hot, cold), parts of the memoryview data, of the chunk at offset; (None, None) if
    none is there, or not whole."""
    import zlib
    header = data[offset:offset + CHUNK_HEADER_BYTES]
    if len(header) < CHUNK_HEADER_BYTES or header[:8] != CHUNK_MAGIC:
        return None, None
    own_offset, hot_bytes, hot_sum, cold_bytes, cold_sum = [
        int.from_bytes(header[start:start + 4], "little") for start in range(8, 28, 4)]
    middle = offset + CHUNK_HEADER_BYTES + hot_bytes
    hot = data[offset + CHUNK_HEADER_BYTES:middle]
    cold = data[middle:middle + cold_bytes]
    whole = own_offset == offset and len(cold) == cold_bytes and zlib.crc32(hot) == hot_sum \
        and zlib.crc32(cold) == cold_sum
    return (hot, cold) if whole else (None, None)


def closure_bytes(closure):
    """Return a closure as it is stored."""
    return closure.to_bytes((closure.bit_length() + 7) // 8, "little")


class Addition:
    """What one job adds to a memory while it holds the lock.

    page_lists: {index: [entries, signatures, checksums] as lists} of pages read or changed;
    changed: indexes of those changed, until they are put into the memory; fresh: digests of those
    whose entries are others now; numbers: {canonical path: record}."""

    def __init__(self, memory):
        """memory: HeaderMemory, just loaded."""
        import marshal
        self.memory = memory
        self.known = {}                 # as trace_path has it; False for what is missing
        self.page_lists, self.numbers = {}, {}
        self.changed, self.put, self.fresh = set(), set(), set()
        self.nodes = {}                 # {node: closure as bytes}, of all that are complete
        for part in memory.old_nodes:
            self.nodes.update(marshal.loads(part))
        for index in memory.pages:
            _, entries, _, _ = memory.page(index)
            for place, path in enumerate(entries.split(b"\0")[1::2]):
                self.numbers[path] = PAGE_ENTRIES * index + place
        self.first_new = len(self.numbers)      # records from here on are new
        self.scans = {}                 # {record: what the file includes} of files read here
        self.watched = {}               # {record of a directory: set of names missed there}
        self.queue = []                 # new nodes to be expanded: (node, path, place)
        self.found = {}                 # {(directory, include, place in the path): lookup}
        self.new_nodes, self.new_lookups, self.new_watches = {}, {}, {}
        self.edges = {}                 # {new node: [closure so far, nodes that it includes]}

    # Records

    def page_list(self, index):
        """Return the lists of a page, which are about to be changed."""
        if index not in self.page_lists:
            lists = [[], [], []]
            if index in self.memory.pages:
                _, entries, signatures, checksums = self.memory.page(index)
                fields = entries.split(b"\0")
                lists = [[fields[place] + b"\0" + fields[place + 1] + b"\0"
                          for place in range(0, len(fields) - 1, 2)],
                         list(signatures), list(checksums)]
            self.page_lists[index] = lists
        self.changed.add(index)
        return self.page_lists[index]

    def add_record(self, path, entry, signature, checksum):
        """Give the thing at a canonical path its number and return that."""
        record = len(self.numbers)
        if record >= MAX_ENTRIES:
            raise OSError(None, "too many headers")
        for values, value in zip(self.page_list(record // PAGE_ENTRIES),
                                 (entry, signature, checksum)):
            values.append(value)
        self.numbers[path] = record
        return record

    def directory_record(self, path):
        """Return the record of a directory."""
        record = self.numbers.get(path)
        if record is None:
            status = posix.stat(path)
            if not stat.S_ISDIR(status.st_mode):    # something was looked for beneath a file
                return self.file_record(path)
            record = self.add_record(path, pack_directory(path), settled_signature(status), 0)
        return record

    def way_closure(self, way):
        """Return the closure of what trace_path found on the way."""
        closure = 0
        for path, target in way:
            record = self.numbers.get(path)
            if record is None:
                record = self.add_record(path, pack_link(path, target), (), 0) if target \
                    else self.directory_record(path)
            closure |= 1 << record
        return closure

    def file_record(self, path):
        """Return the record of a regular file, read unless it is known. Raises OSError."""
        record = self.numbers.get(path)
        if record is None:
            entry, signature, scan = self.examine(path)
            record = self.add_record(path, entry, signature, checksum_of(scan))
            self.scans[record] = scan
        return record

    def examine(self, path):
        """Read a file; return its entry, its signature and what it includes. Raises OSError, and
        Outdated if it is gone."""
        try:
            content, status = read_settled(path)
        except FileNotFoundError:
            raise Outdated
        self.note_definitions(content, self.memory.values)
        entry = pack_file(path, b"-", digest_of(content), status.st_size, status)
        is_compiled = path.endswith((PRECOMPILED, b".pch")) \
            or parent_of(path).endswith(PRECOMPILED)
        return entry, settled_signature(status), () if is_compiled else scan_includes(content)

    def includes_of(self, record, path):
        """Return what the file of a record includes, as scan_includes has it."""
        if record not in self.scans:
            self.scans[record] = self.examine(path)[2]
        return self.scans[record]

    def watch(self, directory, name):
        """Return the record of a directory that lacks a name, which must not appear unseen."""
        record = self.directory_record(directory)
        child = directory.rstrip(b"/") + b"/" + name
        if self.known.get(child) is not False:
            if mode_at(child, follow_links=False):      # it has come just now
                raise Outdated
            self.known[child] = False
            if record not in self.watched:
                self.watched[record] = set(self.memory.watches.get(record, b"").split(b"\0"))
            if name not in self.watched[record]:
                self.watched[record].add(name)
                self.new_watches[record] = self.new_watches.get(record, b"") + name + b"\0"
        return record

    # Macros that name files

    def note_definitions(self, text, names):
        """Remember what text has macros of these names stand for."""
        values = self.memory.values
        for name, found in find_definitions(text, names).items() if names else ():
            values[name] = tuple(found.union(values.get(name, ())))

    def search_definitions(self, names):
        """Look for definitions of macros in all files that are known."""
        for name in names:
            self.memory.values.setdefault(name, ())
        for path in self.numbers if names else ():
            try:
                self.note_definitions(read_settled(path)[0], names)
            except OSError:                     # a directory
                pass

    def defer(self, include, record, directory):
        """Remember an include that means something else for each job."""
        users = self.memory.late.get(include, ())
        if (record, directory) not in users:
            self.memory.late[include] = users + ((record, directory),)

    # Lookups: an include, the directory of the file that has it, and the place of that file.
    #
    # A file's place is the index of the directory in the search path in which it was found; it
    # matters to #include_next. Of what was found beside another file, gcc says that it has no
    # place, and looks everywhere; clang says that it has the other one's. Both are obeyed: -1
    # stands for no place, -2 for beside a file of place 0, -3 of place 1, and so on.

    def directories_for(self, include, directory, place):
        """Yield (place, directory) in the order in which an include is looked for; for NEXT, place
        is where to begin."""
        quoted, directories, _ = self.memory.search
        form, name = include[:1], include[1:]
        if name[:1] == b"/":
            yield -1, b"/"
            return
        if form in (QUOTED, ASSEMBLED):
            yield -2 - place if place >= 0 else place, directory
        first = {ANGLED: quoted, NEXT: place}.get(form, 0)
        for index in range(first, len(directories)):
            yield index, directories[index]

    def look_up(self, include, directory, place):
        """Find what an include leads to; return (closure of the lookup itself, node or None)."""
        key = (lookup_key(include, directory), 0 if include[:1] == ANGLED else place)
        found = self.found.get(key)
        if found is None:
            found = self.found[key] = self.search_for(include, directory, place)
        return found

    def search_for(self, include, directory, place):
        """Do what look_up says, without what is remembered of this job's lookups."""
        closure = 0
        name = include[1:]
        for index, base in self.directories_for(include, directory, place):
            end, way, missing = trace_path(base, name, self.known)
            if way:
                closure |= self.way_closure(way)
            if missing:
                closure |= 1 << self.watch(end, missing)
                continue
            mode = mode_at(end)
            if stat.S_ISDIR(mode):
                closure |= 1 << self.directory_record(end)
                if end.endswith(PRECOMPILED):   # one for each set of options
                    for own_name in posix.listdir(end):
                        closure |= 1 << self.file_record(end + b"/" + own_name)
            elif stat.S_ISREG(mode):
                node = self.node_at(base, name, end, way, index)
                return closure, node
            elif stat.S_ISFIFO(mode):           # which can be read but once
                raise OSError(None, "not a regular file", end)
        return closure, None

    def node_at(self, base, name, end, way, place):
        """Return the node of a file: its name in its canonical directory, and its place in the
        search path if that matters to what it includes. A new one is queued."""
        node = end
        if way:
            head = name[:name.rfind(b"/") + 1]
            parent = trace_path(base, head, self.known)[0]
            node = parent.rstrip(b"/") + b"/" + name[len(head):]
        if node in self.nodes or node in self.edges:
            return node
        placed = b"%s\0%d" % (node, place)
        if placed in self.nodes or placed in self.edges:
            return placed
        scan = self.includes_of(self.file_record(end), end)
        if any(include[:1] == NEXT for include in scan):
            node = placed
        self.edges[node] = [0, []]
        self.queue.append((node, end, place))
        return node

    def expand(self, node, end, place):
        """Find what a new node's includes lead to."""
        record = self.file_record(end)
        directory = parent_of(node)
        closure = 1 << record
        children = []
        for include in self.includes_of(record, end):
            if include[:1] in (ASSEMBLED, MACRO):
                self.defer(include, record, directory)
                continue
            remembered = include[:1] == ANGLED \
                and self.memory.lookups.get(lookup_key(include, directory))
            if remembered:
                closure |= int.from_bytes(remembered, "little")
                continue
            for variant, start in variants_of(include, place):
                own, child = self.look_up(variant, directory, start)
                closure |= own
                if child in self.nodes:
                    closure |= int.from_bytes(self.nodes[child], "little")
                elif child:
                    children.append(child)
        self.edges[node] = [closure, children]

    def close_nodes(self):
        """Give each new node the closures of the nodes that it leads to. Those that include each
        other end with the same one."""
        order = list(self.edges.values())[::-1]
        is_growing = True
        while is_growing:
            is_growing = False
            for edge in order:
                closure = edge[0]
                for child in edge[1]:
                    closure |= self.edges[child][0]
                if closure != edge[0]:
                    edge[0] = closure
                    is_growing = True
        closed = {node: closure_bytes(edge[0]) for node, edge in self.edges.items()}
        self.nodes.update(closed)
        self.new_nodes.update(closed)
        self.edges.clear()

    def learn(self, roots, extras):
        """Make all lookups of a job known; return its closure. extras: see HeaderMemory.learn.

        Raises Outdated, OSError."""
        if not self.memory.search:
            self.learn_search_path()
        for key, names in extras:
            self.answer({key: [(QUOTED + name, self.memory.configuration.cwd) for name in names]})
        while True:
            self.put_pages()
            closure, unknown = self.memory.closure_of(roots)
            if not unknown:
                return closure
            self.answer({key: [tuple(key.split(b"\0"))] for key in unknown})

    def answer(self, questions):
        """Make lookups known. questions: {key: list of (include, directory) that it stands for}"""
        led = {}
        macros = []
        for key, includes in questions.items():
            if key[:1] == MACRO:
                macros.append(includes[0][0][1:])
                includes = ()
            led[key] = [self.look_up(include, directory, -1) for include, directory in includes]
        for node, end, place in self.queue:     # which grows meanwhile
            self.expand(node, end, place)
        self.queue.clear()
        self.close_nodes()
        self.search_definitions(macros)
        for key, results in led.items():
            closure = 0
            for own, node in results:
                closure |= own | (int.from_bytes(self.nodes[node], "little") if node else 0)
            self.new_lookups[key] = closure_bytes(closure)
        self.memory.lookups.update(self.new_lookups)

    def learn_search_path(self):
        """Ask the compiler where it looks. What it passes over because it is missing is watched;
        all must stay as it is, or the compiler is asked again."""
        configuration = self.memory.configuration
        quoted, named, missing = configuration.ask_search_path()
        directories = []
        closure = 0
        for name in named + missing:
            end, way, lacking = trace_path(configuration.cwd, name, self.known)
            closure |= self.way_closure(way)
            closure |= 1 << (self.watch(end, lacking) if lacking else self.directory_record(end))
            if name in named:
                directories.append(end)
        self.memory.search = quoted, tuple(directories), closure_bytes(closure)

    def renew(self, closure):
        """Read again what of a closure has changed since the memory was written. Raises Outdated
        if the memory cannot outlive that."""
        for record, path, status in self.memory.changes(closure):
            if record >= self.first_new:        # read just now
                continue
            if status is None:
                raise Outdated
            index, place = divmod(record, PAGE_ENTRIES)
            entries, signatures, checksums = self.page_list(index)
            if entries[place][:1] == b"d":
                if not stat.S_ISDIR(status.st_mode):
                    raise Outdated
                signatures[place] = settled_signature(status)
                continue
            try:
                entry, signature, scan = self.examine(path)
            except OSError:
                raise Outdated
            if checksum_of(scan) != checksums[place] or not stat.S_ISREG(status.st_mode):
                raise Outdated
            entries[place], signatures[place] = entry, signature

    # The end

    def put_pages(self):
        """Make the changed pages part of the memory."""
        import marshal
        memory = self.memory
        for index in self.changed:
            entries, signatures, checksums = self.page_lists[index]
            content = b"".join(entries)
            digest = digest_of(content)
            if index not in memory.pages or digest != memory.page(index)[0]:
                self.fresh.add(digest)
            memory.pages[index] = marshal.dumps((digest, content, tuple(signatures),
                                                 tuple(checksums)), 2)
        self.put.update(self.changed)
        self.changed.clear()

    def commit(self):
        """Make what was added part of the memory; return it as the parts of a chunk."""
        import marshal
        self.put_pages()
        memory = self.memory
        pages = {index: memory.pages[index] for index in self.put}
        for record, names in self.new_watches.items():
            memory.watches[record] = memory.watches.get(record, b"") + names
        nodes = marshal.dumps(self.new_nodes, 2)
        memory.old_nodes.append(nodes)
        return marshal.dumps((memory.search, pages, self.new_lookups, self.new_watches,
                              memory.late, memory.values), 2), nodes


def variants_of(include, place):
    """Return the lookups that an include in a file of some place may mean: (include, place).

    #include_next in a file without place is a plain #include to clang, and gcc looks in the whole
    path."""
    if include[:1] != NEXT:
        return ((include, place),)
    if place >= 0:
        return ((include, place + 1),)
    name = include[1:]
    everywhere = ((QUOTED + name, place), (ANGLED + name, place), (include, 0))
    return everywhere if place == -1 else everywhere + ((include, -1 - place),)


def checksum_of(scan):
    """Return a checksum of what a file includes."""
    import zlib
    return zlib.crc32(b"\0".join(scan))


class Inputs:
    """The headers of a job.

    references: list of (digest of a page, mask); pages: {digest: content} of these pages; fresh:
    digests of the pages that no volunteer can have, because this job made them; is_certain:
    whether nothing but a missing file can come of what a scan did not see."""

    def __init__(self, memory, closure, is_certain, made=()):
        """made: digests of pages that are new."""
        self.is_certain = is_certain
        self.references, self.pages, self.fresh = [], {}, []
        self.paths = None
        for index, mask in masks_of(closure):
            digest, content, _, _ = memory.page(index)
            self.references.append((digest, mask))
            self.pages[digest] = content
            if digest in made:
                self.fresh.append(digest)

    def paths_of(self, digest):
        """Return the paths of the files with a digest, () if there are none."""
        if self.paths is None:
            self.paths = paths_in_pages(self)
        return tuple(self.paths.get(digest, ()))


def lookup_key(include, directory):
    """Return the key of a lookup: the include, and the directory if it matters."""
    return include + b"\0" + (b"" if include[:1] == ANGLED else directory)


class Roots:
    """Where the list of a job begins.

    keys: of lookups; extras: keys of its sources, for what the compiler named for them; late: list
    of (include, directory) for includes of the sources that depend on macros."""

    def __init__(self, cwd, texts=(), definitions=()):
        """texts: of the sources; definitions: (name, value) of -D, as bytes."""
        self.cwd = cwd
        self.keys, self.extras, self.late = [], [], []
        self.is_certain = True
        self.texts = list(texts) + [b"".join(b"#define %s %s\n" % pair for pair in definitions)]
        self.own_values = {}            # {macro: what it may stand for by texts}

    def add_forced(self, name):
        """Add a file that -include names, or a precompiled header in its place."""
        for suffix in (PRECOMPILED, b".pch", b""):
            self.keys.append(lookup_key(QUOTED + name + suffix, self.cwd))

    def add_source(self, path, directory, text):
        """Add what a source includes. path: canonical; directory: as the compiler names it."""
        scan = scan_includes(text)
        if scan and scan[0][:1] in (QUOTED, ANGLED):
            self.keys.append(lookup_key(scan[0] + PRECOMPILED, directory))
        for include in scan:
            form, name = include[:1], include[1:]
            if form == MACRO:
                self.late.append((include, directory))
            elif form == NEXT:                  # in a source it is a plain include
                self.keys += [lookup_key(QUOTED + name, directory),
                              lookup_key(ANGLED + name, directory)]
            else:
                self.keys.append(lookup_key(include,
                                            self.cwd if form == ASSEMBLED else directory))
        self.extras.append(EXTRA + path + b"\0")

    def values_of(self, memory, name):
        """Return the set of what a macro may stand for in this job."""
        if name not in self.own_values:
            values = set()
            for text in self.texts:
                values.update(find_definitions(text, (name,)).get(name, ()))
            self.own_values[name] = values
        return self.own_values[name].union(memory.values.get(name, ()))

    def late_keys(self, memory, closure):
        """Return the keys of what includes lead to that depend on macros or the working directory,
        for the sources and all files of a closure."""
        users = list(self.late)
        for include, places in memory.late.items():
            users += [(include, directory) for record, directory in places
                      if closure >> record & 1]
        keys = {}
        uncertain = {}                  # directories of includes that no scan can resolve
        while users:
            include, directory = users.pop()
            if include[:1] == UNCERTAIN:
                uncertain[directory] = None
            elif include[:1] != MACRO:
                keys[lookup_key(include, self.cwd if include[:1] == ASSEMBLED else directory)] = 1
            elif (include, directory) not in keys:
                keys[include, directory] = 0    # seen, for macros may lead to each other
                keys[lookup_key(include, b"")] = 1
                users += [(value, directory) for value in self.values_of(memory, include[1:])]
        result = [key for key, is_key in keys.items() if is_key]
        return result + self.shadow_keys(memory, closure, uncertain) if uncertain else result

    def shadow_keys(self, memory, closure, directories):
        """Return the keys of all lookups by which some include, whatever it names, could lead to a
        file of a closure. With them the file is in the root that the compiler here would find
        first, or no file of that name is. If they are too many, nothing is certain."""
        self.is_certain = bin(closure).count("1") * len(directories) <= MOST_SHADOWS
        if not self.is_certain:
            return []
        names = {}
        for path in memory.paths_in(closure):
            for base in memory.search[1]:
                if path.startswith(base + b"/"):
                    names[path[len(base) + 1:]] = None
        return [lookup_key(ANGLED + name, b"") for name in names] \
            + [lookup_key(QUOTED + name, directory) for directory in directories for name in names]


def find_inputs(memory, lister, sources, forced=(), definitions=()):
    """Return the Inputs of a job: what its sources include.

    sources: list of (path, text) as bytes; forced: names that -include and -imacros give;
    definitions: (name, value) of -D, as bytes. Raises OSError if that cannot be found out."""
    roots = Roots(lister.cwd, [text for _, text in sources], definitions)
    roots.keys.append(ANGLED + b"stdc-predef.h\0")      # which gcc includes unasked
    for name in forced:
        roots.add_forced(name)
    for path, text in sources:
        roots.add_source(lister.follow(path), lister.follow(path[:path.rfind(b"/") + 1]), text)
    return memory.recall(roots) or memory.learn(roots)


def ask_compiler(memory, lister, words, source):
    """Ask the compiler itself which files a source includes, and remember that for its next
    find_inputs: what a scan could not see, names put together by macros for example.

    words: options that matter to the preprocessor; source: bytes. Returns whether the compiler
    gave an answer; raises OSError."""
    configuration = memory.configuration
    argv = [configuration.argv0] + words + ["-M", "-MT", "x", "-x", configuration.language,
                                            fsdecode(source)]
    rule, status = run_quietly(configuration.compiler, argv, configuration.environment, 1)
    if status or b"\0" in rule:
        return False
    key = EXTRA + lister.follow(source) + b"\0"
    names = [name for name in names_of_rule(rule) if name != source]    # it is no header
    memory.learn(Roots(lister.cwd), [(key, names)])
    return True


def is_asked(memory, lister, source):
    """Tell whether the compiler has been asked what a source includes."""
    return EXTRA + lister.follow(source) + b"\0" in memory.lookups


def names_of_rule(rule):
    """Return the prerequisites of a rule for make, as bytes."""
    text = rule.replace(b"\\\n", b" ").partition(b":")[2]
    names = [b""]
    for piece in text.split():
        names[-1] += piece
        if piece.endswith(b"\\") and not piece.endswith(b"\\\\"):
            names[-1] = names[-1][:-1] + b" "   # a quoted blank
        else:
            names.append(b"")
    return [name.replace(b"$$", b"$").replace(b"\\#", b"#") for name in names if name]


# -------------------------------------------------------------------------------------------
# Command line: what the compiler is asked for, as the compiler itself would read it. Pure but
# for the files named by @.
# Job expand_response_files scan is_never_served scan_option scan_special check_job check_language
# -------------------------------------------------------------------------------------------

class Job:
    """One compile, read from its command line.

    argv: the command as given        compiler: its first word
    source, output: file names        assembly: -S rather than -c
    language: of the source, as -x names it; given_language: the same if -x gave it, or None
    output_named: whether -o named the output
    here: option words for the preprocessor
    there: option words for the volunteer's compiler
    dependency_option: "-MD", "-MMD" or ""; dependency_file and dependency_target as given
    wp_dependency: index in `here` of the file named by -Wp,-MD,FILE, or None"""

    def __init__(self, argv, is_clang=False):
        """argv: [compiler, argument, ...], text as fsdecode gives it; is_clang: whether the
        compiler is clang, or may be."""
        self.argv = argv
        self.compiler = argv[0]
        self.is_clang = is_clang
        self.source = self.output = self.language = None
        self.next_language = self.given_language = None
        self.x_seen = False
        self.output_named = False
        self.modes = set()
        self.assembly = False
        self.here, self.there = [], []
        self.dependency_option, self.dependency_file = "", None
        self.dependency_target = False
        self.wp_dependency = None
        self.architectures = 0

    def has_option(self, *beginnings):
        """Tell whether an option that goes to the volunteer begins with one of these."""
        return any(word.startswith(beginnings) for word in self.there)

    def debug_option(self):
        """Return the option that asks for debugging information, None if there is none."""
        return next((word for word in self.there if word[:2] == "-g" and word[:5] != "-gno-"
                     and word not in ("-g0", "-ggdb0")), None)

    def add_input(self, name):
        """Note an input file; raises RunLocally for a second one and for standard input."""
        if name == "-":
            raise RunLocally("the source is standard input")
        if name[:1] == "-" or name[:5] in ("/dev/", "/proc"):
            raise RunLocally("%s: not a plain file's name" % name)
        if self.source is not None:
            raise RunLocally("several inputs: %s and %s" % (self.source, name))
        if self.x_seen and not self.next_language:
            raise RunLocally("-x none: drivers differ in what they take the source for")
        self.source, self.given_language = name, self.next_language
        self.language = self.next_language or language_of(name, self.compiler)


def read_response_file(name):
    """Return the text of an @file; None where gcc would take the word for a file's name.

    Raises RunLocally for what can be read but once, and is the compiler's."""
    if mode_at(name) and not stat.S_ISREG(mode_at(name)):
        raise RunLocally("@%s: not a plain file" % name)
    try:
        with open(name, encoding=sys.getfilesystemencoding(), errors="surrogateescape",
                  newline="") as stream:
            return stream.read(MAX_COMMAND_BYTES)
    except (OSError, ValueError):
        return None


def split_response(text):
    """Return the words of a response file, quoted as gcc reads it (libiberty, buildargv):
    blanks part words, '…' and "…" join them, a backslash takes the next character as it is."""
    words, word, quote = [], None, ""
    characters = iter(text)
    for char in characters:
        if char == "\\":
            word = (word or "") + next(characters, "")
        elif quote:
            quote, word = ("", word) if char == quote else (quote, word + char)
        elif char in "'\"":
            quote, word = char, word or ""
        elif char in " \t\n\r\f\v":
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + char
    return words if word is None else words + [word]


def expand_response_files(words, names=None, budget=2000):
    """Return words with each @file replaced by its words, nested as gcc does. names: a list to
    which the files' names are added, or None.

    Raises RunLocally after `budget` files: gcc itself gives up at 2000."""
    while any(word[:1] == "@" for word in words):
        expanded = []
        for word in words:
            text = read_response_file(word[1:]) if word[:1] == "@" else None
            if text is None and word[:1] == "@":
                raise RunLocally("%s cannot be read" % word)
            if text is not None and "\0" in text:
                raise RunLocally("%s holds a zero byte" % word)
            if text is not None and names is not None:
                names.append(word[1:])
            budget -= text is not None
            expanded += [word] if text is None else split_response(text)
        if budget < 0 or len(expanded) > MAX_ARGUMENTS:
            raise RunLocally("the @files hold too much")
        words = expanded
    return words


def scan(argv, search_path=""):
    """Return the Job that argv asks for; raises RunLocally with the reason that it stays here.

    The compiler is not run, and no file is looked at but @files, and those in search_path (the
    text of PATH) where the compiler's name does not tell what it is."""
    if is_never_served(argv[0]):
        raise RunLocally("%s: no daemon serves such a compiler" % argv[0])
    job = Job(argv, may_be_clang(argv[0], search_path))
    words = iter(expand_response_files(argv[1:]))
    for word in words:
        if word == "--":
            if not job.is_clang:
                raise RunLocally("--: gcc does not know it")
            for name in words:
                job.add_input(name)
        elif word[:1] == "-" and word != "-":
            scan_option(job, word, words)
        else:
            job.add_input(word)
    check_job(job)
    return job


# Compilers of other languages, and those that read other command lines than gcc's and clang's or
# run these behind the scenes. Other names may be served: a daemon's --allow-compiler decides.
NEVER_SERVED = frozenset("""
    cl nvcc hipcc dpcpp emcc em++ gfortran f77 g77 f90 f95 flang flang-new ifort ifx nvfortran
    pgfortran gccgo gdc ldc2 gnatgcc gnatmake gcj rustc swiftc ghc valac zig nasm yasm""".split())


def is_never_served(compiler):
    """Tell whether a compiler's name says that no daemon runs it: clang-cl, gfortran-12,
    x86_64-w64-mingw32-gfortran."""
    base = compiler.rpartition("/")[2]
    unversioned = base.rstrip("0123456789.").rstrip("-")
    return any(name in NEVER_SERVED or name.rpartition("-")[2] in NEVER_SERVED
               for name in (base, unversioned))


def may_be_clang(compiler, search_path):
    """Tell whether a compiler is clang, or cannot be told to be gcc. `cc` may be either: the
    first link in search_path decides that leads to a telling name (ccache's do not)."""
    base = compiler.rpartition("/")[2]
    names = [base]
    if "/" in compiler:
        names.append(end_of_links(compiler))
    elif not any(word in base for word in ("gcc", "g++", "clang")):
        names += [end_of_links("%s/%s" % (directory or ".", base))
                  for directory in search_path.split(":")]
    for name in names:
        name = name.rpartition("/")[2]
        if "clang" in name or sys.platform == "darwin":         # where gcc is a name of clang
            return True
        if "gcc" in name or "g++" in name:
            return False
    return True


def scan_option(job, word, words):
    """Read one option, and its argument from the iterator `words`, into job."""
    short, argument = long_to_short(word) if word[:2] == "--" else (word, None)
    kind, reason = classify_option(short + (argument or ""))
    taken = [word]
    if argument is None and short in SEPARATE_ARGUMENT:
        argument = next(words, None)
        if argument is None:
            raise RunLocally("%s lacks its argument" % word)
        taken.append(argument)
    if kind is ELSEWHERE:
        raise RunLocally("%s: %s" % (word, reason))
    if kind is UNKNOWN or kind is PLAIN and len(taken) == 2 and "/" in argument:
        raise RunLocally("%s: not known to be harmless" % word)
    if kind is SPECIAL:
        scan_special(job, short, argument, taken)
    else:
        job.here += taken
        if kind is PLAIN:
            job.there += taken


def scan_special(job, option, argument, taken):
    """Read one of the options that say what the job is.

    option: its short form; argument: its separate argument or None; taken: the words."""
    joined = argument if argument is not None else option[2:]
    if option in ("-c", "-S"):
        job.modes.add(option)
    elif option in ("-M", "-MM"):
        raise RunLocally("%s: %s" % (option, NO_OBJECT))
    elif option[:2] == "-o":
        if job.output is not None:
            raise RunLocally("several outputs: %s and %s" % (job.output, joined))
        job.output = joined
    elif option[:2] == "-x":
        if job.source is not None and joined != "none":
            raise RunLocally("-x after the source")
        job.x_seen = True
        job.next_language = None if joined == "none" else joined
    elif option[:2] == "-M":
        scan_dependency_option(job, option, argument, taken)
    elif option[:4] == "-Wp,":
        scan_wp(job, option[4:].split(","))
    elif option == "-Xpreprocessor":
        scan_wp(job, [argument])
    elif option == "-arch":
        scan_architecture(job, taken)
    else:
        assembler_words = option[4:].split(",") if option[:4] == "-Wa," else [argument]
        if not assembler_words_harmless(assembler_words):
            raise RunLocally("%s: not known to be harmless to the assembler" % " ".join(taken))
        job.there += taken


def scan_architecture(job, taken):
    """Read -arch NAME; each further one would make a second object (Apple's drivers)."""
    job.architectures += 1
    if job.architectures > 1 or "/" in taken[1]:
        raise RunLocally("several -arch")
    job.here += taken
    job.there += taken


def scan_dependency_option(job, option, argument, taken):
    """Read -MD, -MMD, -MF, -MT, -MQ, -MP or -MG. The first three are kept apart, because the
    preprocessor's run derives other names from its changed command line than the compile."""
    if option in ("-MD", "-MMD"):
        job.dependency_option = max(job.dependency_option, option)      # -MMD prevails
    elif option[:3] == "-MF":
        job.dependency_file = argument if argument is not None else option[3:]
    else:
        job.dependency_target = job.dependency_target or option[:3] in ("-MT", "-MQ")
        job.here += taken


def scan_wp(job, words):
    """Read what -Wp, or -Xpreprocessor hand to the preprocessor alone."""
    for position, word in enumerate(words):
        if word in ("-MD", "-MMD") and len(words) == position + 2 and job.wp_dependency is None:
            job.here += ["-Xpreprocessor", word, "-Xpreprocessor", words[position + 1]]
            job.wp_dependency = len(job.here) - 1
            return
        if word in SEPARATE_ARGUMENT or classify_option(word)[0] is not PREPROCESSOR:
            raise RunLocally("-Wp,%s: not known to be harmless" % ",".join(words))
        job.here += ["-Xpreprocessor", word]


def check_job(job):
    """Complete job once all words are read; raises RunLocally where it is no plain compile."""
    if not job.modes:
        raise RunLocally("no -c or -S: the command links")
    if job.source is None:
        raise RunLocally("no source")
    if len(job.modes) == 2:
        raise RunLocally("both -c and -S")
    if job.language not in PREPROCESSED_FORM and job.language not in PREPROCESSED_LANGUAGES:
        raise RunLocally("%s: no source of a known language" % job.source)
    base = job.source.rpartition("/")[2]
    if base.startswith("conftest."):
        raise RunLocally("%s: a configure probe" % base)
    job.assembly = "-S" in job.modes
    job.output_named = job.output is not None
    if not job.output_named:
        stem = base.rpartition(".")[0] or base
        job.output = stem + (".s" if job.assembly else ".o")
    if job.output == "-" or not job.output:
        raise RunLocally("the output is standard output")
    check_language(job)
    check_dependencies(job)


ASSEMBLER_LANGUAGES = ("assembler", "assembler-with-cpp")


def check_language(job):
    """Raise RunLocally for combinations of which a volunteer is known to make something else."""
    if job.language in ASSEMBLER_LANGUAGES:
        if job.assembly:
            raise RunLocally("-S of assembler source")
        if job.debug_option():
            raise RunLocally("%s: the assembler notes its source's name" % job.debug_option())
    if job.is_clang and (job.wp_dependency is not None or "-C" in job.here or "-CC" in job.here):
        raise RunLocally("clang reads -Wp,-MD, -C and -CC otherwise when it preprocesses")


def check_dependencies(job):
    """Raise RunLocally where a dependency file is asked for in a way that we cannot repeat."""
    if job.wp_dependency is not None and (job.dependency_option or job.dependency_file):
        raise RunLocally("dependencies are asked for twice")
    if not job.dependency_option:
        if job.dependency_file is not None:
            job.here += ["-MF", job.dependency_file]
        return
    if job.language in PREPROCESSED_LANGUAGES:
        raise RunLocally("%s of a source that is preprocessed" % job.dependency_option)
    if job.dependency_file is None:
        directory, slash, base = job.output.rpartition("/")
        stem = base.rpartition(".")[0] if "." in base else base
        job.dependency_file = directory + slash + stem + ".d"
    if job.dependency_file == "-":
        raise RunLocally("-MF -: the dependencies go to standard output")


# -------------------------------------------------------------------------------------------
# Command: what a compile is asked for, as far as must be known to have it done as it is
# Command read_command
# -------------------------------------------------------------------------------------------

# By files a command travels as it is, so that hardly any option need be understood. These keep
# it here, by the reason that the user is told; * stands for any ending.
LOCAL_OPTIONS = {
    NO_OBJECT: """-E -M -MM -fsyntax-only -### --help* -print-* --print-* -dumpmachine
        -dumpversion -dumpfullversion -dumpspecs --version --target-help --analyze -analyze
        -rewrite-objc -verify-pch --precompile -module-file-info""",
    "it tells of this machine or this run": """-v -H -Q -time -time=* -ftime-report* -fmem-report*
        -fpre-ipa-mem-report -fpost-ipa-mem-report -fstats -ftime-trace* -fproc-stat-report*
        -freport-bug -gen-reproducer* -MJ* -gen-cdb-fragment-path*""",
    "it uses modules": """-fmodules* -fmodule-* -fcxx-modules -fprebuilt-* -fimplicit-module*
        -fbuild-session*""",
    "it runs or loads other programs": """-fplugin* -fpass-plugin* -iplugindir* -plugin* -load*
        -specs* -wrapper -B* -ccc-* -gcc-toolchain* --gcc-toolchain* --gcc-install-dir* -foffload*
        -Xopenmp-target* --offload* --cuda-* --config* -fuse-cuid*""",
    "it gives names another meaning": """-ivfsoverlay* -working-directory* -fapinotes* -remap
        --driver-mode* -ObjC*""",
    "it may make several objects": "-arch -Xarch_*",
    "it writes files of names that are not foreseen": "-fdump-ada-spec*"}
LOCAL_INDEX = {word: reason for reason, words in LOCAL_OPTIONS.items() for word in words.split()}
LONGEST_LOCAL = max(map(len, LOCAL_INDEX))

# Options that make up the include path, joined to their argument or not.
SEARCH_OPTIONS = (
    "-I", "-iquote", "-isystem", "-idirafter", "-iprefix", "-iwithprefix", "-iwithprefixbefore",
    "-cxx-isystem", "-c-isystem", "-isysroot", "-iframework", "-imultilib", "-imultiarch", "-F",
    "--sysroot", "-nostdinc", "-nobuiltininc", "-nostdlibinc", "-stdlib", "-m", "-target",
    "--target", "-resource-dir", "-i")
NO_SEARCH_OPTIONS = ("-mtune", "-include", "-imacros", "-integrated-as")
HEADER_SUFFIXES = {".h": "c-header", ".hh": "c++-header", ".H": "c++-header",
                   ".hp": "c++-header", ".hxx": "c++-header", ".hpp": "c++-header",
                   ".HPP": "c++-header", ".h++": "c++-header", ".tcc": "c++-header"}
HEADER_LANGUAGES = frozenset(("c-header", "c++-header", "objective-c-header",
                              "objective-c++-header"))
DISTRIBUTED_LANGUAGES = PREPROCESSED_LANGUAGES.union(PREPROCESSED_FORM, HEADER_LANGUAGES)
MACHINE_WORDS = ("-march=native", "-mtune=native", "-mcpu=native")


class Command:
    """A compile command, as far as it must be known.

    argv: as given; compiler: its first word; words: the others, with those of @files in their
    place; response_files: the names of these; sources: [(name, language)]; output: what -o names,
    or None; assembly: whether -S rather than -c; search_words: the options that make up the
    include path; definitions: the arguments of -D; included: those of -include and -imacros;
    values: words, and parts of words, that may name a file; dump_directory: what -dumpdir puts
    before the names of dumps, or None; dump_bases: [how they go on]; prototypes: what -aux-info
    names; dependency_file: what -MF names;
    wants_dependencies: whether -MD or -MMD is given."""

    def __init__(self, argv):
        """argv: [compiler, argument, ...], text as fsdecode gives it."""
        self.argv, self.compiler = argv, argv[0]
        self.words, self.response_files = [], []
        self.sources, self.output = [], None
        self.language = None            # of -x, for the sources that follow
        self.modes = set()
        self.search_words, self.definitions, self.included, self.values = [], [], [], []
        self.dump_directory, self.dump_bases, self.prototypes = None, [], None
        self.preprocessor_words = []    # what is left without -c, outputs and dependency files
        self.dependency_file, self.wants_dependencies = None, False
        self.passed = None              # the last argument of -Xclang

    @property
    def assembly(self):
        """Tell whether assembler text is asked for."""
        return "-S" in self.modes

    def add_source(self, name):
        """Note an input file. Raises RunLocally if no other machine can read it."""
        if name == "-":
            raise RunLocally("the source is standard input")
        base = name.rpartition("/")[2]
        suffix = base[base.rfind("."):] if "." in base else ""
        language = self.language or language_of(name, self.compiler)
        if language is None:
            language = HEADER_SUFFIXES.get(suffix)
            if language == "c-header" and "++" in self.compiler.rpartition("/")[2]:
                language = "c++-header"
        if language not in DISTRIBUTED_LANGUAGES:
            raise RunLocally("%s: no source of a known language" % name)
        if base.startswith("conftest."):
            raise RunLocally("%s: a configure probe" % base)
        self.sources.append((name, language))

    def outputs(self):
        """Return the names of the files that the command is sure to be about to write."""
        ending = ".s" if self.assembly else ".o"
        if self.output:
            made = [self.output]
        else:
            made = [name + ".gch" if language in HEADER_LANGUAGES and not self.assembly else
                    without_suffix(name.rpartition("/")[2]) + ending
                    for name, language in self.sources]
        if self.dependency_file:
            return made + [self.dependency_file]
        return made + [without_suffix(name) + ".d" for name in made if self.wants_dependencies]


def without_suffix(path):
    """Return path less the last dot of its base name and what follows it."""
    directory, slash, base = path.rpartition("/")
    return directory + slash + (base.rpartition(".")[0] if "." in base else base)


def why_local_option(option):
    """Return the reason why a command with this option stays here; None if it need not."""
    reason = LOCAL_INDEX.get(option)
    length = min(len(option), LONGEST_LOCAL)
    while reason is None and length > 1:
        reason = LOCAL_INDEX.get(option[:length] + "*")
        length -= 1
    return reason


def read_command(argv):
    """Return the Command that argv holds; raises RunLocally with the reason that it stays here.

    No file is looked at but those named by @."""
    command = Command(argv)
    command.words = expand_response_files(argv[1:], command.response_files)
    words = iter(command.words)
    for word in words:
        if word == "--":
            for name in words:
                command.add_source(name)
        elif word[:1] == "-" and word != "-":
            read_word(command, word, words)
        else:
            command.add_source(word)
    check_command(command)
    return command


def check_command(command):
    """Raise RunLocally where a command makes no object."""
    makes_header = command.sources and all(language in HEADER_LANGUAGES
                                           for _, language in command.sources)
    if not command.modes and not makes_header:
        raise RunLocally("no -c or -S: the command links")
    if len(command.modes) == 2:
        raise RunLocally("both -c and -S")
    if not command.sources:
        raise RunLocally("no source")
    if command.output and len(command.sources) > 1:
        raise RunLocally("one output of several sources")
    if command.output in ("", "-"):
        raise RunLocally("the output is standard output")


def read_word(command, word, words):
    """Read one option into command, and its argument from the iterator `words`."""
    option, argument = long_to_short(word) if word[:2] == "--" else (word, None)
    reason = why_local_option(option)
    if reason:
        raise RunLocally("%s: %s" % (word, reason))
    separate = argument is None and option in SEPARATE_ARGUMENT
    if separate:
        argument = next(words, None)
        if argument is None:
            raise RunLocally("%s lacks its argument" % word)
        command.values.append(argument)
        note_parts(command, argument)
        reason = why_local_option(argument) if option == "-Xclang" else None
        if reason:
            raise RunLocally("%s %s: %s" % (word, argument, reason))
    elif option[:4] in ("-Wa,", "-Wp,"):
        for part in option[4:].split(","):
            note_parts(command, part)
            if part[:2] == "-D":
                command.definitions.append(part[2:])
    else:
        note_parts(command, word)
    note_meaning(command, option, argument)
    taken = [word, argument] if separate else [word]
    if leads_to_headers(option, argument or ""):
        command.search_words += taken
    if option[:2] not in ("-c", "-S", "-o", "-x", "-M") and option[:6] != "-Wp,-M" \
            and not (argument or "").startswith("-emit"):
        command.preprocessor_words += taken


def leads_to_headers(option, argument):
    """Tell whether an option may have a say in where headers are looked for."""
    if option in ("-Xclang", "-Xpreprocessor"):
        return not argument.startswith(("-emit", "-M"))
    if option[:4] == "-Wp,":
        return ",-M" not in option
    return option.startswith(SEARCH_OPTIONS) and not option.startswith(NO_SEARCH_OPTIONS)


def note_parts(command, word):
    """Note what may name a file in a word that is an option with a joined argument."""
    value = word.partition("=")[2]
    if word[:1] == "@":
        command.values.append(word[1:])
    elif value:
        command.values.append(value)
    elif word[:1] != "-":
        command.values.append(word)


def note_meaning(command, option, argument):
    """Note what an option says, if it is one of the few that count. argument: its separate one,
    or None."""
    beginning = option[:2]
    if option in ("-c", "-S"):
        command.modes.add(option)
    elif beginning == "-o" and not option.startswith(("-objc", "-object")):
        if command.output is not None:
            raise RunLocally("several outputs")
        command.output = argument if argument is not None else option[2:]
    elif beginning == "-x":
        language = argument if argument is not None else option[2:]
        command.language = None if language == "none" else language
    elif beginning == "-D":
        command.definitions.append(argument if argument is not None else option[2:])
    elif option.startswith(("-include", "-imacros")) and option[:12] != "-include-pch":
        command.included.append(argument if argument is not None else option[8:])
    elif option == "-Xclang":
        if command.passed == "-include":
            command.included.append(argument)
        command.passed = argument
    elif option == "-aux-info":
        command.prototypes = argument
    elif option == "-dumpdir":
        command.dump_directory = argument
    elif option == "-dumpbase":
        command.dump_bases.append(argument)
    elif option in ("-MD", "-MMD"):
        command.wants_dependencies = True
    elif option[:3] == "-MF":
        command.dependency_file = argument if argument is not None else option[3:]
    elif option[:5] == "-Wp,-" and option[4:8] in ("-MD,", "-MMD"):
        command.dependency_file = option.split(",")[2] if option.count(",") > 1 else None


# -------------------------------------------------------------------------------------------
# Toolchain: the compiler itself, as files; found once, and remembered
# find_compiler find_toolchain resolve_native
# -------------------------------------------------------------------------------------------

# The compiler proper of each language, which gcc's driver starts, and what any compiler may start.
COMPILERS_PROPER = {"c": "cc1", "c++": "cc1plus", "objective-c": "cc1obj",
                    "objective-c++": "cc1objplus", "assembler-with-cpp": "cc1"}
OTHER_PROGRAMS = ("as", "objcopy")
# What loader, C library and clang read of the system, where it is there.
ZONE_DIRECTORY = "/usr/share/zoneinfo"  # for __TIMESTAMP__
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/os-release", "/etc/lsb-release",
                "/etc/debian_version", "/etc/redhat-release", "/etc/SuSE-release",
                "/usr/share/locale/locale.alias")
LOCALE_DIRECTORIES = ("/usr/lib/locale", "/usr/share/locale", "/usr/share/locale-langpack")
LOCALE_VARIABLES = ("LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LANG", "LANGUAGE")
TRANSLATED_PROGRAMS = ("gcc", "cpplib", "gas", "bfd", "opcodes", "libc", "binutils")
MOST_LOCALE_BYTES = 64 * 1024 * 1024    # of locale-archive, which grows with what is installed
CHARSET_OPTIONS = ("-finput-charset", "-fexec-charset", "-fwide-exec-charset")
PASSED_OVER = ("distcc", "ccache", "sccache", "icecc")


class NotByFiles(Exception):
    """The job cannot be done by files, for a reason of this machine; by text it may."""


# Lists of files that many jobs share are remembered: the digest of what follows, and a marshal.
LIST_FORMAT = 1


class FileList:
    """Entries that many jobs share: references: [(digest, mask)] and pages: {digest: page} as in
    Inputs; checks: [(canonical path, link target or signature)] by which is seen whether all is
    as it was; about: what else is known of them, a text."""

    def __init__(self, pages, checks, about=""):
        """pages: list of bytes."""
        self.checks, self.about = checks, about
        self.pages = {digest_of(page): page for page in pages}
        self.references = [(digest, (1 << page.count(b"\0") // 2) - 1)
                           for digest, page in self.pages.items()]

    def paths_of(self, digest):
        """Return the paths of the files with a digest, () if there are none."""
        return paths_in_pages(self).get(digest, ())

    def is_as_it_was(self):
        """Tell whether all files and links are still what was listed."""
        try:
            for path, check in self.checks:
                now = posix.readlink(path) if isinstance(check, bytes) \
                    else time_of_change(path) if isinstance(check, int) \
                    else signature_of(posix.lstat(path))
                if now != check:
                    return False
        except OSError:
            return False
        return True


def time_of_change(path):
    """Return when a directory or file was last changed, in ns; 0 if it is not there."""
    try:
        return posix.stat(path).st_mtime_ns
    except OSError:
        return 0


def list_of(lister, about, places=()):
    """Return the FileList of what a Lister has collected; places: directories in which nothing
    must appear, and files that must not."""
    entries = list(lister.entries.values())
    pages = [b"".join(entries[at:at + PAGE_ENTRIES])
             for at in range(0, len(entries), PAGE_ENTRIES)]
    checks = []
    for path, entry in lister.entries.items():
        if entry[:1] == b"s":
            checks.append((path, posix.readlink(path)))
        elif entry[:1] == b"f":
            checks.append((path, settled_signature(posix.lstat(path))))
    checks += [(path, time_of_change(path)) for path in map(fsencode, places)]
    return FileList(pages, checks, about)


def recall(path):
    """Return what remember() wrote to the file at path; None if that is not there, or not
    whole."""
    import marshal
    try:
        content, _ = read_settled(path)
    except OSError:
        return None
    body = content[DIGEST_DIGITS:]
    if digest_of(body) != content[:DIGEST_DIGITS]:
        return None
    form, value = marshal.loads(body)
    return value if form == LIST_FORMAT else None


def remember(path, value):
    """Keep a value in the file at path, a private one: whole, or not at all."""
    import marshal
    body = marshal.dumps((LIST_FORMAT, value), 2)
    fresh = "%s.%d" % (path, posix.getpid())
    try:
        descriptor = posix.open(fresh, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL, 0o600)
        try:
            write_whole(descriptor, digest_of(body) + body)
        finally:
            posix.close(descriptor)
        posix.rename(fresh, path)
    except OSError as error:
        debug("%s is not kept: %s" % (path, error.strerror))


def find_compiler(name, search_path):
    """Return the path of the compiler `name`, which is no wrapper of one. Raises NotByFiles.

    search_path: the text of PATH, in which caches and other distributors are passed over."""
    candidates = [name] if "/" in name else [
        "%s/%s" % (directory or ".", name) for directory in search_path.split(":")]
    for path in candidates:
        if posix.access(path, posix.X_OK) and not is_directory(path) \
                and not end_of_links(path).rpartition("/")[2].startswith(PASSED_OVER):
            if not begins_with(path, b"\x7fELF"):
                raise NotByFiles("%s is a script" % path)
            return path
    raise NotByFiles("%s: not found in PATH" % name)


def base_language(language):
    """Return the language whose compiler proper takes a source in `language`."""
    for name in ("objective-c++", "objective-c", "c++", "assembler"):
        if language.startswith(name):
            return "assembler-with-cpp" if language == "assembler-with-cpp" else name
    return "c"


def find_toolchain(command, path, environment, directory):
    """Return the FileList of what runs the compiler at `path` on another machine; its `about` is
    "clang" or "gcc".

    directory: where such lists are remembered. Raises OSError."""
    languages = sorted({base_language(language) for _, language in command.sources})
    targets = [word for word in command.search_words if word[:8] in ("-target", "--target")]
    charsets = any(option in word for word in command.words for option in CHARSET_OPTIONS)
    # The driver looks for these in PATH, where another may come first now.
    others = [find_program(name, environment.get("PATH", DEFAULT_PATH)) for name in OTHER_PROGRAMS]
    key = (path, languages, targets, charsets, others,
           [environment.get(name) for name in LOCALE_VARIABLES + ("TZ",)])
    memory = "%s/toolchain-%s" % (directory, digest_of(fsencode(repr(key)))[:32].decode())
    known = recall(memory)
    if known:
        toolchain = FileList(*known)
        if toolchain.is_as_it_was():
            return toolchain
    debug("listing the files of %s" % path)
    listing = ToolchainListing(path, targets, environment)
    listing.add_programs(languages)
    listing.add_system()
    listing.add_locale()
    if charsets:
        listing.add_charsets()
    toolchain = list_of(listing.lister, listing.family, listing.places)
    remember(memory, (list(toolchain.pages.values()), toolchain.checks, toolchain.about))
    return toolchain


def ask_program(program, environment, *words):
    """Return what a program prints, both on stdout and stderr; "" if it cannot be run."""
    import subprocess
    settings = dict(environment, LC_ALL="C")
    settings[RECURSION_GUARD] = str(RECURSION_LIMIT)
    try:
        return subprocess.run([program, *words], env=settings, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=60).stdout.decode(errors="surrogateescape")
    except (OSError, subprocess.SubprocessError):
        return ""


class ToolchainListing:
    """The files of a toolchain in the making. All of this is done once for a compiler, so that
    modules may be loaded which a job could not afford."""

    def __init__(self, path, targets, environment):
        """path: of the driver; targets: its options that choose a target."""
        self.path, self.targets, self.environment = path, targets, environment
        self.lister = Lister(b"/")
        self.places = []                # paths where more may appear
        self.family = "gcc"

    def ask(self, *words):
        """Return what the driver says."""
        return ask_program(self.path, self.environment, *self.targets, *words)

    def libraries_of(self, program):
        """Return the libraries that the loader names for a program (ld.so(8))."""
        settings = dict(self.environment, LD_TRACE_LOADED_OBJECTS="1")
        libraries = []
        for line in ask_program(program, settings, "--version").splitlines():
            library = line.strip().rpartition(" => ")[2].partition(" (0x")[0]
            if library[:1] == "/" and " (0x" in line:
                libraries.append(library)
        return libraries

    def add_programs(self, languages):
        """Add the driver, and the programs that it may start for sources in these languages."""
        self.add_program(self.path)
        search_path = self.environment.get("PATH", DEFAULT_PATH)
        names = [COMPILERS_PROPER[name] for name in languages if name in COMPILERS_PROPER]
        for name in [*names, *OTHER_PROGRAMS]:
            found = self.ask("-print-prog-name=" + name).strip()
            program = find_program(found, search_path) if found else None
            if program:
                self.add_program(program)
                self.places.append(program.rpartition("/")[0] if "/lib" in program else program)
        specs = self.ask("-print-file-name=specs").strip()
        if "/" in specs:
            self.add_if_there(specs)
        about = self.ask("-v")
        if "clang version" in about:
            self.family = "clang"
            self.add_of_clang(about)

    def add_program(self, path):
        """Add a program and its libraries. Raises NotByFiles if it is a script."""
        if not begins_with(path, b"\x7fELF"):
            raise NotByFiles("%s is a script" % path)
        self.lister.add(fsencode(path), b"x")
        for library in self.libraries_of(path):
            self.lister.add(fsencode(library), b"l")

    def add_of_clang(self, about):
        """Add what clang looks at besides: files by which it finds the headers of gcc, of which
        it only wants to know that they are there, and lists for sanitizers.

        about: what clang -v prints."""
        mark = "Found candidate GCC installation: "
        for line in about.splitlines():
            if line.startswith(mark):
                directory = line[len(mark):].rpartition("/")[0]
                self.places += [directory, directory.rpartition("/")[0]]
                for subdirectory in ("", "/32", "/x32", "/64"):
                    self.add_presence(line[len(mark):] + subdirectory + "/crtbegin.o")
        lists = self.ask("-print-resource-dir").strip() + "/share"
        for name in names_in(lists):
            self.add_if_there("%s/%s" % (lists, name))

    def add_presence(self, path):
        """Add an empty file in place of the one at path, if there is one."""
        if mode_at(path):
            self.lister.add_emptied(fsencode(path))

    def add_if_there(self, path):
        """Add a file that need not be there."""
        if stat.S_ISREG(mode_at(path)):
            self.lister.add(fsencode(path))

    def add_system(self):
        """Add what the loader and the C library look at."""
        zone = (self.environment.get("TZ") or "/etc/localtime").lstrip(":")
        zone = zone if zone[:1] == "/" else "%s/%s" % (ZONE_DIRECTORY, zone)
        for path in SYSTEM_FILES + (zone,):
            self.add_if_there(path)
            self.places += [] if mode_at(path) else [path]

    def add_locale(self):
        """Add what decides on quotation marks and on the language of messages."""
        values = [self.environment.get(name) or "" for name in LOCALE_VARIABLES]
        names = {name for value in values for name in value.split(":")} - {"", "C", "POSIX"}
        for name in sorted(names):
            for variant in locale_variants(name):
                self.places += LOCALE_DIRECTORIES
                for directory in LOCALE_DIRECTORIES:
                    self.add_locale_directory("%s/%s" % (directory, variant))
        archive = "/usr/lib/locale/locale-archive"
        if names and mode_at(archive) and posix.stat(archive).st_size <= MOST_LOCALE_BYTES:
            self.lister.add(fsencode(archive))

    def add_locale_directory(self, directory):
        """Add a locale's own files, and the translations of what takes part in a compile."""
        for name in names_in(directory):
            self.add_if_there("%s/%s" % (directory, name))
        messages = directory + "/LC_MESSAGES"
        for name in names_in(messages):
            if name.startswith(TRANSLATED_PROGRAMS + ("SYS_",)):
                self.add_if_there("%s/%s" % (messages, name))

    def add_charsets(self):
        """Add what iconv loads to convert between character sets."""
        for library in self.libraries_of(self.path):
            directory, _, base = library.rpartition("/")
            if base.startswith("libc.so"):
                directory += "/gconv"
                for name in names_in(directory):
                    kind = b"l" if name.endswith(".so") else b"-"
                    self.lister.add(fsencode("%s/%s" % (directory, name)), kind)


def names_in(directory):
    """Return the names in a directory, sorted; none if it cannot be read."""
    try:
        return sorted(posix.listdir(directory))
    except OSError:
        return []


def locale_variants(name):
    """Return the directory names under which the C library looks for a locale: as it is, with
    its charset as glibc spells that, without it, and the language alone."""
    language, dot, charset = name.partition("@")[0].partition(".")
    plain = "".join(char for char in charset.lower() if char.isalnum())
    return sorted({name, language + dot + plain, language, language.partition("_")[0]})


def resolve_native(command, path, is_clang, environment):
    """Return (argv, specs): the command's argv, in which -march=native and its like may have been
    replaced by what the driver makes of them on this machine; or a (path, text) of gcc's specs
    that have it make the same of them on any machine, else None. Raises NotByFiles, OSError."""
    chosen = [word for word in command.words if word[:7] in ("-march=", "-mtune=")
              or word[:6] == "-mcpu="]
    if is_clang and posix.uname().machine in ("x86_64", "i686", "i586", "i386"):
        chosen = [word for word in chosen if word[:6] != "-mcpu="]      # of which clang complains
    if not any(word in MACHINE_WORDS for word in chosen):
        return command.argv, None
    status = posix.stat(path)
    key = (path, status.st_mtime_ns, status.st_size, chosen)
    # Not in the directory of memories: that may be another machine's as well.
    memory = "%s/native-%s" % (work_directory(environment),
                               digest_of(fsencode(repr(key)))[:32].decode())
    answer = recall(memory)
    if answer is None:
        driver = Driver(path, environment)
        answer = driver.specs_of_machine() or driver.words_of_machine(chosen, is_clang)
        remember(memory, answer)
    if isinstance(answer, tuple):
        return command.argv, answer
    if not any(word in MACHINE_WORDS for word in command.argv):
        raise NotByFiles("a response file has -march=native")
    at = next(index for index, word in enumerate(command.argv) if word in MACHINE_WORDS)
    return command.argv[:at] + answer + [word for word in command.argv[at:]
                                         if word not in MACHINE_WORDS], None


class Driver:
    """A compiler's driver, asked once what it makes of -march=native and its like."""

    def __init__(self, path, environment):
        """path: of the driver."""
        self.path, self.environment = path, environment

    def arguments(self, *options):
        """Return what the driver starts the compiler proper with: a list of tuples, of an option
        and its argument if that is separate."""
        import shlex
        said = ask_program(self.path, self.environment, *options, "-###", "-E", "-x", "c",
                           "/dev/null")
        line = next((line for line in said.splitlines() if "/cc1" in line or '"-cc1"' in line), "")
        words = iter(shlex.split(line))
        return [(word, next(words, "")) if word in ("--param", "-target-cpu", "-target-feature",
                                                    "-tune-cpu") else (word,) for word in words]

    def added_by(self, options, plain):
        """Return the groups of arguments that options add to what `plain` options give."""
        without = self.arguments(*plain)
        return [group for group in self.arguments(*options) if group not in without
                and group[0] not in MACHINE_WORDS]

    def specs_of_machine(self):
        """Return (path, text) of specs in which the words have been put in the places where this
        driver detects the machine; None where it does that elsewhere. gcc reads a file of this
        name before all else (gcc manual, "Spec Files"), and the order of words is in objects."""
        if "\n*cc1_cpu:\n" not in ask_program(self.path, self.environment, "-dumpspecs"):
            return None
        found = ask_program(self.path, self.environment, "-print-search-dirs").splitlines()
        directory = next((line[9:] for line in found if line.startswith("install: ")), "")
        specs = ask_program(self.path, self.environment, "-print-file-name=specs").strip()
        if directory[:1] != "/" or "/" in specs:
            return None                 # it has such a file, which says we do not know what
        machine = self.added_by(["-march=native", "-mtune=generic"], [])
        tune = self.added_by(["-mtune=native"], [])
        texts = [" ".join(word for group in groups for word in group)
                 for groups in (machine, tune)]
        return directory + "specs", (
            "*cc1_cpu:\n%%{march=native:%%>march=native %s %%{!mtune=*:%%>mtune=native %s}} "
            "%%{mtune=native:%%>mtune=native %s}\n\n" % (texts[0], texts[1], texts[1]))

    def words_of_machine(self, chosen, is_clang):
        """Return the words that say to any machine's driver what `chosen` says to this one."""
        plain = [word for word in chosen if word not in MACHINE_WORDS]
        words = []
        for group in self.added_by(chosen, plain):
            option = {"-target-cpu": "-march=", "-tune-cpu": "-mtune="}.get(group[0])
            if option:
                words.append(option + group[1])
            else:
                words += [word for each in group for word in ["-Xclang"] * is_clang + [each]]
        return words


# -------------------------------------------------------------------------------------------
# Hosts: the words of a host list, and where the list comes from
# Host parse_host parse_hosts read_host_list
# -------------------------------------------------------------------------------------------

class Host:
    """A volunteer, or this machine when `in_place`: name, port, limit (slots), position in
    the list, and key, which names its files in the lock directory.

    by_ssh: whether it is reached by ssh, as `user` ("" for whom ssh takes by itself); then port
    may be SSH_PORT, which leaves that to ssh as well. is_limited: whether the list gives the
    limit, rather than the host itself."""

    __slots__ = ("name", "port", "limit", "in_place", "position", "key", "by_ssh", "user",
                 "is_limited")

    def __init__(self, name, port, limit, position, user=None):
        """name: host name or address without brackets; port and limit: numbers in range; user:
        None for a host that is not reached by ssh."""
        self.name, self.port, self.limit, self.position = name, port, limit, position
        self.by_ssh, self.user = user is not None, user or ""
        self.is_limited = True
        self.in_place = name == "localhost" and not self.by_ssh
        safe = name if name.replace(".", "").replace("-", "").isalnum() else "".join(
            char if char.isalnum() or char in ".-" else "%%%02x" % ord(char) for char in name)
        self.key = safe if self.in_place else "%s_%d" % (safe, port)
        if self.by_ssh:
            self.key = "%s@%s" % (self.user, self.key)

    def __str__(self):
        """Return the name for messages, with the port where it is not the usual one."""
        return self.name if self.port == DEFAULT_PORT and not self.by_ssh else self.address()

    def address(self):
        """Return HOST:PORT, an IPv6 address in brackets; USER@ before it and perhaps no port for
        a host over ssh."""
        name = "[%s]" % self.name if ":" in self.name else self.name
        if not self.by_ssh:
            return "%s:%d" % (name, self.port)
        return "%s@%s" % (self.user, name) + (":%d" % self.port if self.port else "")


def parse_number(text, least, most, what):
    """Return the decimal number in text; raises ValueError that names `what` if it is none."""
    if not (text.isascii() and text.isdigit() and least <= int(text[:9]) <= most) or len(text) > 9:
        raise ValueError("%s %r is not a number from %d to %d" % (what, text, least, most))
    return int(text)


def parse_host(word, position):
    """Return the Host that one word of a host list names: HOST[:PORT][/LIMIT], where HOST is
    a name, an IPv4 address or an [IPv6 address]; [USER]@ before it asks for ssh. Raises
    ValueError with the reason."""
    address, slash, limit_text = word.partition("/")
    user, by_ssh, address = address.rpartition("@")
    if by_ssh:
        check_user_name(user)
    if address[:1] == "[":
        name, bracket, rest = address[1:].partition("]")
        if not bracket or rest[:1] not in ("", ":") or ":" not in name:
            raise ValueError("an IPv6 address is written [ADDRESS]:PORT")
        colon, port_text = rest[:1], rest[1:]
    else:
        name, colon, port_text = address.partition(":")
        if ":" in port_text:
            raise ValueError("an IPv6 address needs brackets")
    check_host_name(name)
    in_place = name == "localhost" and not by_ssh
    if in_place and colon:
        raise ValueError("localhost runs in place and has no port; 127.0.0.1 uses its daemon")
    usual_port = SSH_PORT if by_ssh else DEFAULT_PORT
    port = parse_number(port_text, 1, 65535, "port") if colon else usual_port
    limit = processor_count() if in_place else DEFAULT_LIMIT
    if slash:
        limit = parse_number(limit_text, 1, MOST_SLOTS, "limit")
    host = Host(name, port, limit, position, user if by_ssh else None)
    host.is_limited = bool(slash) or in_place
    return host


SSH_PORT = 0                            # the one that ssh and its configuration take
MOST_USER_CHARACTERS = 64


def check_user_name(user):
    """Raise ValueError unless user is "", or has the characters of a user's name: none that ssh
    could take for an option, or a shell for more than a word."""
    if user and (len(user) > MOST_USER_CHARACTERS or user[0] == "-" or not user.isascii()
                 or not user.translate({ord(char): None for char in ".-_+"}).isalnum()):
        raise ValueError("not a user's name before @")


def check_host_name(name):
    """Raise ValueError unless name has the characters and length of a host name or address."""
    if not name or len(name) > 253 or not name.isascii() or name[0] in "-.":
        raise ValueError("not a host name")
    if not name.translate({ord(char): None for char in ".-_:%"}).isalnum():
        raise ValueError("not a host name")


def processor_count():
    """Return how many processors this process may use."""
    try:
        return len(posix.sched_getaffinity(0)) or 1
    except AttributeError:              # neither on macOS nor on the BSDs
        return posix.cpu_count() or 1


def parse_hosts(text):
    """Return ([Host], [complaint]) for a host list; # begins a comment, words are separated
    by blanks. A word that cannot be read is left out and named in a complaint."""
    hosts, complaints = [], []
    for line in text.splitlines():
        for word in line.partition("#")[0].split():
            try:
                hosts.append(parse_host(word, len(hosts)))
            except ValueError as error:
                complaints.append("host list: %s is ignored: %s" % (word[:100], error))
    return hosts, complaints


def read_host_list(environment):
    """Return (text, where it is from): DISTCC_HOSTS, or else the first hosts file there is.

    (None, "") where there is none."""
    if "DISTCC_HOSTS" in environment:
        return environment["DISTCC_HOSTS"], "DISTCC_HOSTS"
    places = []
    if environment.get("DISTCC_DIR"):
        places.append(environment["DISTCC_DIR"] + "/hosts")
    if environment.get("HOME"):
        places.append(environment["HOME"] + "/.distcc/hosts")
    for path in places + ["/etc/distcc/hosts"]:
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                return stream.read(MOST_HOSTS_BYTES), path
        except OSError as error:
            import errno
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                warn("cannot read %s: %s" % (path, error.strerror))
    return None, ""


# -------------------------------------------------------------------------------------------
# Slots: which machine takes the job
#
# Clients do not know of each other; they meet in the lock directory. What holds:
#   - A host of limit L has L slots, each an empty file. A job holds an exclusive flock on one
#     while its volunteer works. The kernel lets go of it when the process ends, however it
#     ends, so there is nothing to repair after a crash and nobody has to announce anything.
#   - A job goes to the host with the smallest running / limit; ties go to the host that comes
#     first in the list. Hosts that have answered markedly more slowly come after the others.
#   - Who finds no slot queues at the turnstile, a lock that one waiter holds. That one looks
#     for a slot every 20 ms; the rest sleep in flock, and the kernel lets them in about in the
#     order of their arrival. A newcomer that finds the turnstile locked does not jump the queue.
#     Every 20 s the sleepers look for themselves, for the first one may have been suspended.
#   - Who comes to a free slot of a slow host while faster ones are full leaves it alone if so few
#     wait that all would be done sooner on the fast ones: the last jobs of a build decide its end.
#   - This machine has two pools with the limit of `localhost`: one for compiles and links, one
#     for preprocessors, so that a long link never starves the volunteers of source. Waits for
#     them are bounded: a job that could wait for itself runs at last.
#   - Two more kinds of file: backoff-HOST, whose time of change is when the host was found
#     unreachable, and `speeds`, what each host has been seen to do. Both may vanish any time.
#
# private_directory work_directory lock_directory open_plain try_lock tunnel_path Pool
# read_speeds write_speed slow_classes own_pool
# -------------------------------------------------------------------------------------------

def private_directory(path, shared):
    """Make the directory if need be; raise OSError unless it is safe to keep locks in.

    shared: whether others than the user may own it and write to it as a group; then its
    parents are made as well."""
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        if not shared:
            raise
        import os
        os.makedirs(path, 0o700, exist_ok=True)
    status = posix.lstat(path)
    if not stat.S_ISDIR(status.st_mode) and not (shared and is_directory(path)):
        raise NotADirectoryError(None, "not a directory")
    if shared and not posix.stat(path).st_mode & stat.S_IWOTH:
        return path
    if status.st_uid != posix.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(None, "others may write there")
    return path


SAFE_DIRECTORIES = set()                # found to be so by this process: a job asks five times


def work_directory(environment):
    """Return the directory of working files, made if need be; raises OSError."""
    path = "%s/distcc-%d" % (environment.get("TMPDIR") or "/tmp", posix.geteuid())
    if path not in SAFE_DIRECTORIES:
        SAFE_DIRECTORIES.add(private_directory(path, shared=False))
    return path


def lock_directory(environment):
    """Return the directory of locks, made if need be; raises OSError."""
    own = environment.get("DISTCC_DIR")
    return private_directory(own + "/lock", shared=True) if own else work_directory(environment)


def open_shared(path, mode):
    """Open a file of the lock directory, made if need be, so that all can use it whom the
    directory lets in: a user's umask of 077 must not lock the others out. One of them may have
    put something else there: that is named by the OSError which this raises."""
    while True:
        try:
            return open_plain(path, mode)
        except FileNotFoundError:
            pass
        try:
            descriptor = posix.open(path, mode | posix.O_CREAT | posix.O_EXCL, 0o666)
        except FileExistsError:         # another has made it just now
            continue
        posix.fchmod(descriptor, 0o666)
        return descriptor


def open_plain(path, mode):
    """Open a file where others may have put a link, which would have us write into a file of
    our own that they cannot, or a pipe, which would hold us up. Raises OSError for these."""
    descriptor = posix.open(path, mode | posix.O_NOFOLLOW | posix.O_NONBLOCK)
    status = posix.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
        return descriptor
    posix.close(descriptor)
    raise OSError(None, "it has several names" if stat.S_ISREG(status.st_mode)
                  else "it is no plain file", path)


def try_lock(path, mode=posix.O_RDONLY):
    """Return a descriptor that holds the lock on path, None if another process holds it.

    Raises OSError when the file can be neither opened nor made."""
    descriptor = open_shared(path, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        posix.close(descriptor)
        return None
    return descriptor


MOST_TUNNEL_DIRECTORY = 55              # bytes: a UNIX socket's path has at most 107, and ssh
                                        # binds to one that is 17 longer first
# Beside letters and digits: ssh gives a meaning to others.
PLAIN_PATH_CHARACTERS = {ord(char): None for char in "/._-"}


def tunnel_path(host, suffix, about=""):
    """Return the path of a file of the way to a host over ssh, in the private directory of working
    files, or below /tmp where that is too long. about: what else its name depends on. Raises
    OSError."""
    directory = work_directory({"TMPDIR": setting("TMPDIR")})
    if len(fsencode(directory)) > MOST_TUNNEL_DIRECTORY or not directory.isascii() \
            or not directory.translate(PLAIN_PATH_CHARACTERS).isalnum():
        directory = work_directory({})
    identity = "\0".join((setting("DISTCC_SSH") or "", host.key, about))
    return "%s/ssh-%s%s" % (directory, digest_of(fsencode(identity))[:16].decode(), suffix)


def is_being_prepared(host):
    """Tell whether a job makes the way to a host over ssh, or sends a compiler there."""
    try:
        descriptor = try_lock(tunnel_path(host, ".lock"), posix.O_RDWR)
    except OSError:
        return False
    if descriptor is not None:
        posix.close(descriptor)
    return descriptor is None


def on_alarm(signal_number, frame):
    """Signal handler: end a bounded wait."""
    raise WaitedLongEnough


class Pool:
    """The slots of some hosts, and the queue before them.

    directory: of the locks; hosts: [Host]; queue: the turnstile's name; poll_s: how often its
    holder looks; speeds: as read_speeds gives them; slow: {host key: its slowness class}."""

    def __init__(self, directory, hosts, queue, poll_s, speeds=None, backoff_s=0.0, work=""):
        """See the class; backoff_s: how long an unreachable host is left alone, in seconds; work:
        what a host may refuse while it takes other jobs."""
        self.work = digest_of(fsencode(work))[:16].decode() if work else ""
        self.directory, self.hosts, self.poll_s = directory, hosts, poll_s
        self.turnstile = "%s/%s" % (directory, queue)
        self.speeds = speeds or {}
        self.slow = slow_classes(self.speeds, hosts)
        self.backoff_s = backoff_s

    def slot_path(self, host, number):
        """Return the path of a host's slot file."""
        return "%s/%s-%d" % (self.directory, host.key, number)

    def backoff_path(self, host):
        """Return the path of the file whose time says when the host was last unreachable."""
        return "%s/backoff-%s" % (self.directory, host.key)

    def refusal_path(self, host):
        """Return the path of the file whose time says when the host last refused such jobs."""
        return "%s/refused-%s-%s" % (self.directory, host.key, self.work)

    def is_backed_off(self, host):
        """Tell whether the host is to be left alone, at all or with such jobs."""
        return self.is_recent(host, self.backoff_path) or self.work != "" \
            and self.is_recent(host, self.refusal_path)

    def is_recent(self, host, path_of):
        """Tell whether path_of(host) was touched within the time that hosts are left alone; a
        time in the future counts for nothing."""
        import time
        if host.in_place or not self.backoff_s:
            return False
        try:
            age_s = time.time() - posix.lstat(path_of(host)).st_mtime
        except OSError:
            return False
        return 0 <= age_s < self.backoff_s

    def is_refused(self):
        """Tell whether some host is left alone because it refuses such jobs."""
        return any(self.is_recent(host, self.refusal_path) for host in self.hosts)

    def note_refusal(self, host):
        """Ask the host for no such jobs for a while."""
        self.touch(self.refusal_path(host))

    def back_off(self, host):
        """Leave the host alone for a while."""
        self.touch(self.backoff_path(host))

    def touch(self, path):
        """Give a file of the lock directory the present time."""
        try:
            descriptor = open_shared(path, posix.O_WRONLY)
            posix.utime(descriptor)
            posix.close(descriptor)
        except OSError as error:
            debug("cannot note that a host is to be left alone: %s" % error)

    def slots_in_order(self):
        """Yield (rank, host, number): the slots in the order in which they fill.

        rank is (slowness, number / limit)."""
        slots = [((self.slow.get(host.key, 0), number / host.limit), host.position, number, host)
                 for host in self.hosts for number in range(host.limit)]
        slots.sort()
        for rank, position, number, host in slots:
            yield rank, host, number

    def count_running(self, host, known_free):
        """Return how many of the host's slots others hold; `known_free` is one that we hold."""
        running = 0
        for number in range(host.limit):
            if number != known_free:
                descriptor = try_lock(self.slot_path(host, number))
                if descriptor is None:
                    running += 1
                else:
                    posix.close(descriptor)
        return running

    def choose(self):
        """Return (host, descriptor) of the best free slot, None if all are taken. A host over ssh
        that is being prepared (see Tunnel) is passed over while another one is free."""
        unready = []
        while True:
            place = self.choose_without(unready)
            if not place or not place[0].by_ssh or not is_being_prepared(place[0]):
                return place or (unready and self.choose_without(())) or None
            posix.close(place[1])
            unready.append(place[0])

    def choose_without(self, unready):
        """Return what choose() does, none of these hosts.

        Slots are tried in the order of their fill, so number / limit is the least that a
        host's running / limit can be; a free slot is final once no later one can beat it.
        Where there is but one host, it need not be known how many run there."""
        best = None
        asleep = dict.fromkeys(unready, True)
        for rank, host, number in self.slots_in_order():
            if best and rank >= best[0]:
                break
            if host not in asleep:
                asleep[host] = self.is_backed_off(host)
            if asleep[host] or best and best[1] is host:
                continue
            descriptor = try_lock(self.slot_path(host, number))
            if descriptor is None:
                continue
            if len(self.hosts) == 1:
                return host, descriptor
            running = self.count_running(host, number)
            true_rank = (rank[0], running / host.limit)
            if best and best[0] <= true_rank:
                posix.close(descriptor)
                continue
            if best:
                posix.close(best[2])
            best = true_rank, host, descriptor
        return best and best[1:]

    def take_now(self):
        """Return (host, descriptor) if a slot is free and nobody queues for it, else None."""
        import time
        for pause_s in (0.001, 0.003, 0):       # others who just look hold it for 0.5 ms
            turn = try_lock(self.turnstile)
            if turn is not None:
                break
            time.sleep(pause_s)
        else:
            return None
        try:
            return self.choose()
        finally:
            posix.close(turn)

    def wait(self, size=0, most_s=float("inf")):
        """Return (host, descriptor) as soon as our turn has come and a slot is free; None when
        every host is backed off, or after most_s. size: bytes of the job's text, 0 if unknown."""
        import time
        previous = _signal.signal(_signal.SIGALRM, on_alarm)
        turn = open_shared(self.turnstile, posix.O_RDONLY)
        presence = self.join_waiters()
        come = started = time.monotonic()
        try:
            while True:
                self.take_turn(turn, min(TURN_S, come + most_s - started))
                started = time.monotonic()
                place = self.choose()
                if place and self.had_better_wait(place[0], size, started - come):
                    posix.close(place[1])
                elif place or all(map(self.is_backed_off, self.hosts)):
                    return place
                if started - come >= most_s:
                    return None
                looked_s = time.monotonic() - started
                time.sleep(min(max(self.poll_s, 20 * looked_s), 0.04))
        finally:
            _signal.signal(_signal.SIGALRM, previous)
            posix.close(turn)
            if presence is not None:
                posix.close(presence)

    def take_turn(self, turn, seconds):
        """Wait for the turnstile, so long at most: who holds it may have been stopped (Ctrl-Z),
        and then all others look for themselves now and then."""
        try:
            _signal.setitimer(_signal.ITIMER_REAL, max(seconds, 0.001))
            try:
                fcntl.flock(turn, fcntl.LOCK_EX)
            finally:
                _signal.setitimer(_signal.ITIMER_REAL, 0)
        except WaitedLongEnough:
            pass

    def join_waiters(self):
        """Return a descriptor whose lock counts us among the waiters; None where the count
        decides nothing, or when there are very many."""
        if any(self.slow.values()):
            for number in range(MOST_WAITERS_COUNTED):
                descriptor = try_lock("%s/waiter-%d" % (self.directory, number))
                if descriptor is not None:
                    return descriptor
        return None

    def more_waiters_than(self, most):
        """Tell whether more than `most` clients wait, this one included."""
        count = 0
        for number in range(MOST_WAITERS_COUNTED):
            descriptor = try_lock("%s/waiter-%d" % (self.directory, number))
            if descriptor is not None:
                posix.close(descriptor)
                continue
            count += 1
            if count > most:
                return True
        return False

    def had_better_wait(self, host, size, waited_s):
        """Tell whether a free slot of this slow host is best left alone: all who wait would
        sooner be done on the faster hosts, though these are full. waited_s: for how long we
        have; the gain must outweigh it, or as much of it as has passed without any job's end."""
        faster = [other for other in self.hosts if other.key in self.slow
                  and self.slow[other.key] < self.slow.get(host.key, 0)
                  and not self.is_backed_off(other)]
        if not faster:
            return False
        fast_s = sum(self.seconds_for(other, size) for other in faster) / len(faster)
        gain_s = self.seconds_for(host, size) - fast_s - min(waited_s, self.seconds_idle())
        slots = sum(other.limit for other in faster)
        return gain_s > 0 and not self.more_waiters_than(gain_s * slots / fast_s)

    def seconds_idle(self):
        """Return for how long no host has finished a job, as far as can be known."""
        import time
        try:
            idle_s = time.time() - posix.lstat(self.directory + "/speeds").st_mtime
        except OSError:
            return float("inf")
        return idle_s if idle_s >= 0 else float("inf")

    def seconds_for(self, host, size):
        """Return how long a host of known speed takes for a text of `size` bytes."""
        compiled_bytes, seconds, jobs = self.speeds[host.key]
        return size * seconds / compiled_bytes


MOST_SPEEDS_BYTES = 1024 * 1024         # of a thousand hosts


def read_speeds(directory):
    """Return {host key: (bytes, seconds, jobs)}: fading sums of what hosts have compiled.

    Lines that make no sense are left out: the file is only ever a hint."""
    try:
        descriptor = open_plain(directory + "/speeds", posix.O_RDONLY)
    except OSError:
        return {}
    text = posix.read(descriptor, MOST_SPEEDS_BYTES)
    posix.close(descriptor)
    speeds = {}
    for line in text.splitlines():
        try:
            key, compiled_bytes, seconds, jobs = line.decode("ascii").split()
            figures = float(compiled_bytes), float(seconds), int(jobs)
        except ValueError:
            continue
        if 1 <= figures[0] < 1e15 and 1e-6 <= figures[1] < 1e9 and 0 < figures[2]:
            speeds[key] = figures
    return speeds


def write_speed(directory, key, compiled_bytes, seconds):
    """Add one compile to a host's sums. Old jobs fade by 5 % with each new one. Skipped when
    another client writes: one job more or less does not matter."""
    descriptor = None
    try:
        descriptor = try_lock(directory + "/speeds", posix.O_RDWR)
        if descriptor is None:
            return
        speeds = read_speeds(directory)
        old = speeds.pop(key, (0.0, 0.0, 0))
        speeds[key] = old[0] * 0.95 + compiled_bytes, old[1] * 0.95 + seconds, old[2] + 1
        newest = list(speeds.items())[-1000:]
        text = "".join("%s %.0f %.6f %d\n" % ((name,) + figures) for name, figures in newest)
        posix.ftruncate(descriptor, posix.write(descriptor, text.encode("ascii")))
    except OSError as error:
        debug("cannot note the speed of %s: %s" % (key, error))
    finally:
        if descriptor is not None:
            posix.close(descriptor)


TEXT_ONLY_S = 600.0                     # then a host may have learnt to do jobs by files


def about_path(directory, host):
    """Return the path of the file that says what a host is known to do."""
    return "%s/about-%s" % (directory, host.key)


def read_about(directory, host):
    """Return (way, places): "files" or "text", None where it is not known or was found long ago;
    and how many places the host has, as text, "" where that is not known: only a daemon of ours
    tells."""
    import time
    path = about_path(directory, host)
    way, _, places = read_beginning(path)[:64].decode("ascii", "replace").strip().partition(" ")
    if way == "text" and time.time() - posix.stat(path).st_mtime > TEXT_ONLY_S:
        way = None
    return (way if way in ("files", "text") else None), (places if places.isdigit() else "")


def set_limits(hosts, directory):
    """Give hosts whose limit the list does not say as many slots as they have places, once they
    have told."""
    for host in hosts:
        places = "" if host.is_limited else read_about(directory, host)[1]
        if places:
            host.limit = max(1, min(int(places[:9]), MOST_SLOTS))


def write_about(directory, host, about):
    """Remember what a host does; that this fails does not matter."""
    try:
        descriptor = open_shared(about_path(directory, host), posix.O_RDWR)
        posix.ftruncate(descriptor, posix.write(descriptor, about.encode()))
        posix.close(descriptor)
    except OSError as error:
        debug("cannot note what %s does: %s" % (host, error))


def slow_classes(speeds, hosts):
    """Return {host key: class}: 0 for the fastest hosts and those not yet known, 1 for those
    1.6 to 3.2 times slower, 2 beyond that, and so on. Jobs differ, so less means nothing."""
    rates = {}
    for host in hosts:
        compiled_bytes, seconds, jobs = speeds.get(host.key, (0, 1, 0))
        if jobs >= 3:
            rates[host.key] = compiled_bytes / seconds
    fastest = max(rates.values(), default=0)
    return {key: int(1.25 * fastest / rate).bit_length() - 1 for key, rate in rates.items()}


def own_pool(directory, hosts, work):
    """Return one of the pools on this machine. work: "localhost" for compiles and links,
    "preprocess" for preprocessors."""
    limit = next((host.limit for host in hosts if host.in_place), processor_count())
    host = Host("localhost", DEFAULT_PORT, limit, 0)
    host.key = work
    return Pool(directory, [host], "queue-" + work, LOCAL_POLL_S)


# -------------------------------------------------------------------------------------------
# Preprocess: the half of the compile that stays here, by text
# find_program start_environment spawn work_file preprocess Text
# -------------------------------------------------------------------------------------------

# With one of these set, the compiler does more than its command line says.
TELLING_VARIABLES = (
    "GCC_EXEC_PREFIX", "COMPILER_PATH", "GCC_COMPARE_DEBUG", "GCC_EXTRA_DIAGNOSTIC_OUTPUT",
    "GCC_ROOT", "CCC_OVERRIDE_OPTIONS", "CCC_ADD_ARGS", "CC_PRINT_OPTIONS", "CC_PRINT_HEADERS",
    "CC_LOG_DIAGNOSTICS", "CC_PRINT_PROC_STAT", "CC_PRINT_INTERNAL_STAT", "RC_DEBUG_OPTIONS",
    "AS_SECURE_LOG_FILE", "MACOSX_DEPLOYMENT_TARGET", "IPHONEOS_DEPLOYMENT_TARGET")

MAX_BEGINNING_BYTES = 4 * 1024 * 1024   # of a file that is looked into
USUAL_BEGINNING_BYTES = 64 * 1024       # fewer are read in one call
TEXT_WINDOW_BYTES = 96 * 1024
WINDOW_OVERLAP_BYTES = 8192


def find_program(name, search_path):
    """Return the path of a program as exec would find it; None if there is none.

    name: with a slash it is the path; search_path: the text of PATH."""
    if "/" in name:
        return name if mode_at(name) else None
    for directory in search_path.split(":"):
        candidate = "%s/%s" % (directory or ".", name)
        if posix.access(candidate, posix.X_OK) and not is_directory(candidate):
            return candidate
    return None


def start_environment():
    """Return the environment that we were started with, as a dictionary.

    CPython under the C locale sets LC_CTYPE for itself (PEP 538), and a compiler would print
    other quotes then; only the kernel still knows what was there before."""
    environment = {fsdecode(name): fsdecode(value) for name, value in posix.environ.items()
                   if name}             # a nameless one may come to us, but exec refuses it
    if environment.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8"):
        try:
            with open("/proc/self/environ", "rb") as stream:
                entries = stream.read().split(b"\0")
        except OSError:
            return environment
        original = [entry[9:] for entry in entries if entry.startswith(b"LC_CTYPE=")]
        del environment["LC_CTYPE"]
        if original:
            environment["LC_CTYPE"] = fsdecode(original[0])
    return environment


def spawn(path, argv, environment, stdout, stderr):
    """Start a program in a process group of its own, stdin empty; return its process id.

    stdout, stderr: descriptors. Raises OSError."""
    if hasattr(posix, "posix_spawn"):
        return posix.posix_spawn(path, argv, environment, setpgroup=0, file_actions=[
            (posix.POSIX_SPAWN_OPEN, 0, "/dev/null", posix.O_RDONLY, 0),
            (posix.POSIX_SPAWN_DUP2, stdout, 1), (posix.POSIX_SPAWN_DUP2, stderr, 2)],
            setsigmask=(), setsigdef=(_signal.SIGPIPE, _signal.SIGXFSZ) + ENDING_SIGNALS)
    child = posix.fork()                # PyPy has no posix_spawn
    if child:
        try:
            posix.setpgid(child, child) # here too, or kill() may come before the child's own
        except OSError:                 # it has run exec, and has done so itself
            pass
        return child
    try:
        posix.setpgid(0, 0)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        posix.dup2(posix.open("/dev/null", posix.O_RDONLY), 0)
        posix.dup2(stdout, 1)
        posix.dup2(stderr, 2)
        reset_signals()
        posix.execve(path, argv, environment)
    finally:
        posix._exit(127)                # never return into the parent's program


def work_file(environment, suffix):
    """Return the descriptor of a new working file. It has no name, so that nothing can be left
    behind; with DISTCC_SAVE_TEMPS=1 it has one and stays. Raises OSError."""
    directory = work_directory(environment)
    path = "%s/%d%s" % (directory, posix.getpid(), suffix)
    keep = environment.get("DISTCC_SAVE_TEMPS") == "1"
    if not keep and hasattr(posix, "O_TMPFILE"):
        try:
            return posix.open(directory, posix.O_RDWR | posix.O_TMPFILE, 0o600)
        except OSError as error:        # file systems without it answer in several ways
            import errno
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                raise
    descriptor = posix.open(path, posix.O_RDWR | posix.O_CREAT | posix.O_TRUNC
                            | posix.O_NOFOLLOW, 0o600)
    if keep:
        debug("kept: " + path)
    else:
        posix.unlink(path)
    return descriptor


DEPENDENCY_VARIABLES = ("DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES")


class Text:
    """What preprocessing one source has given; nothing of it changes.

    file, size: the descriptor of the text, and its bytes; messages: what the preprocessor wrote to
    stderr; rule: the dependency rule that the user wants, b"" if none; rule_place: (name, mode) of
    the file that it belongs into, as write_in_place takes them, or None; argv: the command for the
    volunteer."""

    def __init__(self, file, messages, rule, rule_place, argv):
        """See the class."""
        self.file, self.size = file, posix.fstat(file).st_size
        self.messages, self.rule, self.rule_place, self.argv = messages, rule, rule_place, argv


def preprocess(job, path, environment):
    """Return the Text of a Job's source, as plain -E gives it. path: the compiler's file.

    Raises RunLocally where the compiler had better be run here, for it shall say itself why it
    fails; HostFailed when TMPDIR is full; OSError."""
    check_compiler(path)
    colour = colour_options(job, environment)
    argv = remote_command(job, colour, environment)
    if job.language in PREPROCESSED_LANGUAGES:
        text = Text(open_preprocessed(job, environment), b"", b"", None, argv)
    else:
        check_precompiled(job)
        file = work_file(environment, ".i")
        rule_place, variable = find_rule_place(job, environment)
        rule_file = None if rule_place is None else work_file(environment, ".d")
        command = preprocessor_command(job, colour, rule_file)
        messages = run_preprocessor(job, path, command, file, rule_file,
                                    with_rule_in(environment, variable, rule_file))
        rule = b"" if rule_file is None else b"".join(content_of(rule_file))
        text = Text(file, messages, rule, rule_place, argv)
    if text.size > MAX_SOURCE_BYTES:
        raise RunLocally("the preprocessed source has %d bytes" % text.size)
    check_text(job, text)
    return text


def check_compiler(path):
    """Raise RunLocally for a script in a compiler's place: it may add options, of which a
    volunteer would know nothing."""
    if begins_with(path, b"#!"):
        raise RunLocally("%s is a script" % path)


def check_precompiled(job):
    """Raise RunLocally where clang would load a precompiled header instead of the one that is
    named, and leave that out of the text."""
    words = iter(job.here if job.is_clang else ())
    for word in words:
        if word in ("-include", "--include"):
            header = next(words, "")
            if any(mode_at(header + suffix) for suffix in (".pch", ".gch")):
                raise RunLocally("%s is precompiled" % header)


def find_rule_place(job, environment):
    """Return ((name, mode), variable): the file that a dependency rule of the job belongs into,
    as write_in_place takes it, and the variable that asks for the rule; each of them or None."""
    if job.dependency_option:
        return (job.dependency_file, posix.O_TRUNC), None
    if job.wp_dependency is not None:
        return (job.here[job.wp_dependency], posix.O_TRUNC), None
    for variable in () if job.is_clang else DEPENDENCY_VARIABLES:       # as gcc ranks them
        name = environment.get(variable, "").partition(" ")[0]
        if environment.get(variable):
            return (name, posix.O_APPEND), variable
    return None, None


def preprocessor_command(job, colour, rule_file):
    """Return the argv of the preprocessor. rule_file: descriptor of the file for the dependency
    rule, or None."""
    options = list(job.here)
    if job.wp_dependency is not None:
        options[job.wp_dependency] = "/dev/fd/%s" % rule_file
    elif job.dependency_option:
        options += [job.dependency_option, "-MF", "/dev/fd/%s" % rule_file]
        if not job.dependency_target:
            options += ["-MQ", job.output if job.output_named
                        else job.output.rpartition(".")[0] + ".o"]
    if job.given_language:
        options += ["-x", job.given_language]
    return [job.compiler, "-E"] + colour + options + [job.source]


def with_rule_in(environment, variable, rule_file):
    """Return the environment with a variable that asks for a dependency rule changed, so that the
    rule goes to the file of that descriptor; variable may be None."""
    if not variable:
        return environment
    name, blank, target = environment[variable].partition(" ")
    return dict(environment, **{variable: "/dev/fd/%d%s%s" % (rule_file, blank, target)})


def run_preprocessor(job, path, command, file, rule_file, environment):
    """Run the preprocessor to its end, its stdout into the file of a descriptor; return what it
    writes to stderr. Raises RunLocally, HostFailed and OSError as preprocess() does."""
    if rule_file is not None:
        posix.set_inheritable(rule_file, True)
    status, messages = run_to_end(path, command, environment, file)
    if status and not posix.fstatvfs(file).f_bavail:
        raise HostFailed(EXIT_IO_ERROR, "%s: no room in TMPDIR for the preprocessed source"
                         % job.source, reached=False)
    if status:
        raise RunLocally("the preprocessor failed")
    return messages


def run_to_end(path, argv, environment, stdout):
    """Run a program; return (wait status, what it writes to stderr). stdout: a descriptor.

    A signal that ends us meanwhile ends it as well, with all its processes. Raises OSError."""
    reader, writer = posix.pipe()
    child = None
    try:
        # A signal must not come between the start and the note of it, or nobody ends the run.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, ENDING_SIGNALS)
        try:
            child = spawn(path, argv, environment, stdout, writer)
        finally:
            posix.close(writer)
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ENDING_SIGNALS)
        messages = read_to_end(reader)
        status = posix.waitpid(child, 0)[1]
        child = None
        return status, messages
    finally:
        posix.close(reader)
        if child is not None:
            end_group(child)


def end_group(child):
    """Kill a child that leads a process group, and the group."""
    try:
        posix.killpg(child, _signal.SIGKILL)
        posix.waitpid(child, 0)
    except OSError:                     # the signal that ends us came as waitpid had reaped it
        pass


def open_preprocessed(job, environment):
    """Return the descriptor of a source that needs no preprocessor. C without a line marker
    gets one, or the compiler would take its input's name for messages and symbols.

    Raises RunLocally if it cannot be read, OSError when a copy cannot be written."""
    try:
        descriptor = posix.open(job.source, posix.O_RDONLY | posix.O_NONBLOCK)
    except OSError as error:
        raise RunLocally("%s: %s" % (job.source, error.strerror))
    if job.language == "assembler" or posix.pread(descriptor, 5, 0) in (b'# 0 "', b'# 1 "'):
        return descriptor
    marked = work_file(environment, ".i")
    name = fsencode(job.source).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    write_whole(marked, b'# 1 "%s"\n' % name)
    for piece in content_of(descriptor):
        write_whole(marked, piece)
    return marked


def text_windows(text):
    """Yield a Text in pieces that overlap, so that no name is cut in two."""
    for offset in range(0, text.size, TEXT_WINDOW_BYTES - WINDOW_OVERLAP_BYTES):
        yield posix.pread(text.file, TEXT_WINDOW_BYTES, offset)


def read_beginning(name):
    """Return the text of a file, MAX_BEGINNING_BYTES at most; b"" if it cannot be read."""
    try:
        descriptor = posix.open(name, posix.O_RDONLY | posix.O_NONBLOCK)
    except OSError:
        return b""
    try:
        text = posix.read(descriptor, USUAL_BEGINNING_BYTES)
        if len(text) == USUAL_BEGINNING_BYTES:
            text += posix.read(descriptor, MAX_BEGINNING_BYTES - USUAL_BEGINNING_BYTES)
        return text
    except OSError:
        return b""
    finally:
        posix.close(descriptor)


def check_text(job, text):
    """Raise RunLocally for a Text of which a volunteer would make another object: where the
    assembler reads a file that it has not, or where a pragma acts on macros, of which -E knows
    (gcc 12) or tells (clang 14) nothing."""
    if job.language in PREPROCESSED_FORM and not job.is_clang \
            and decides_on_macros(read_beginning(job.source)):
        raise RunLocally("its pragmas change the macros")
    for window in text_windows(text):
        if names_other_file(window):
            raise RunLocally("it reads another file as it is compiled")
        if job.is_clang and packs_by_macro(window):
            raise RunLocally("clang does not expand #pragma pack")


def names_other_file(text):
    """Tell whether preprocessed text (bytes) has the assembler read a file (.incbin FILE,
    .include "FILE") or the compiler load a precompiled header."""
    if b".incbin" in text or b"pch_preprocess" in text:
        return True
    if b".include" not in text:
        return False
    import re
    return re.search(rb'\.include[ \t]+\\?"|^[ \t]*\.include\b', text, re.M) is not None


def decides_on_macros(text):
    """Tell whether a source has a #pragma GCC target or optimize. In the system's headers these
    do no harm."""
    at = text.find(b"GCC")
    while at >= 0:
        if text[at + 3:at + 80].lstrip().startswith((b"target", b"optimize")):
            return True
        at = text.find(b"GCC", at + 3)
    return False


def packs_by_macro(text):
    """Tell whether text has a #pragma pack whose arguments are names yet to be expanded."""
    if b"pragma pack" not in text:
        return False
    import re
    arguments = re.findall(rb"pragma pack\s*\(([^)\n]*)", text)
    return any(re.search(rb"\b(?!push\b|pop\b|show\b)[A-Za-z_]", each) for each in arguments)


# -------------------------------------------------------------------------------------------
# Remote job: the connection, the request, the reply
# Connection Pace remote_command send_request recv_reply Reply
# -------------------------------------------------------------------------------------------

class Connection:
    """A connection to a volunteer. socket: the connected socket after finish()."""

    def __init__(self, host):
        """host: the Host; nothing happens yet."""
        self.host, self.socket, self.fault = host, None, None
        self.addresses, self.unread = [], b""
        self.timeout_s, self.pace = IO_TIMEOUT_S, None
        self.received = 0               # bytes

    def start(self):
        """Look the name up and begin to connect; faults wait for finish()."""
        import _socket
        try:
            self.addresses = _socket.getaddrinfo(self.host.name.encode("ascii"), self.host.port,
                                                 _socket.AF_UNSPEC, _socket.SOCK_STREAM)
        except OSError as error:        # bytes, or CPython loads its IDNA tables: 3 ms
            self.fault = error
        self.try_next_address()

    def try_next_address(self):
        """Begin to connect to the next address that allows as much; False if none is left."""
        import _socket
        self.close()
        while self.addresses:
            family, kind, protocol, name, address = self.addresses.pop(0)
            try:
                self.socket = _socket.socket(family, kind, protocol)
                self.socket.setblocking(False)
                self.socket.connect(address)
            except BlockingIOError:
                return True
            except OSError as error:
                self.fault = error
                self.close()
            else:
                return True
        return False

    def finish(self, timeout_s):
        """Wait until connected, CONNECT_TIMEOUT_S for each address; raises HostFailed.

        timeout_s: of each later step on the socket."""
        import _socket
        while self.socket:
            if self.is_writable(CONNECT_TIMEOUT_S * 1000):
                code = self.socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
                if not code:
                    self.timeout_s = timeout_s
                    self.socket.settimeout(timeout_s)
                    self.watch_line()
                    return
                self.fault = OSError(code, posix.strerror(code))
            else:
                self.fault = TimeoutError(None, "no answer within %g s" % CONNECT_TIMEOUT_S)
            self.try_next_address()
        reason = (self.fault and self.fault.strerror) or "no address"
        raise HostFailed(EXIT_CONNECT_FAILED, "cannot connect: " + reason, reached=False)

    def watch_line(self):
        """Have the kernel find out within a minute that the network or the other machine is
        gone, whether it is our turn to speak or theirs. A daemon that takes nothing for so long
        counts as gone, too: Linux does not tell a full window from a cut line."""
        import _socket
        idle_s, between_s, probes = KEEPALIVE
        options = (("TCP_KEEPIDLE", idle_s), ("TCP_KEEPALIVE", idle_s),      # as macOS has it
                   ("TCP_KEEPINTVL", between_s), ("TCP_KEEPCNT", probes),
                   ("TCP_USER_TIMEOUT", 1000 * (idle_s + between_s * probes)))
        try:
            self.socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
            for name, value in options:
                if hasattr(_socket, name):
                    self.socket.setsockopt(_socket.IPPROTO_TCP, getattr(_socket, name), value)
        except OSError as error:        # then its silence will tell
            debug("%s: %s" % (self.host, error))

    def is_writable(self, timeout_ms):
        """Wait until the connection stands or has failed; tell whether it is so."""
        import select
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLOUT)
        return bool(poll.poll(timeout_ms))

    def cork(self, on):
        """Hold back (or let go) packets that are not full, where the system can."""
        import _socket
        if hasattr(_socket, "TCP_CORK") and setting("DISTCC_TCP_CORK") != "0":
            self.socket.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_CORK, on)

    def send_file(self, descriptor, size):
        """Send `size` bytes of a file, without taking them into memory."""
        pace = Pace(self.timeout_s)
        offset = 0
        while offset < size:
            try:
                sent = posix.sendfile(self.socket.fileno(), descriptor, offset, size - offset)
            except BlockingIOError:
                self.is_writable(pace.time_left_s() * 1000)
                continue
            if not sent:
                raise HostFailed(EXIT_IO_ERROR, "the preprocessed source was cut short")
            offset += sent
            pace.count += sent

    def receive(self, most):
        """Return up to `most` bytes, b"" at the end; raises HostFailed after a silence, and when
        a reply that has begun comes too slowly.

        What the system has is taken in one call, for a reply has eight parts and more."""
        while not self.unread:
            import _socket
            if self.pace:
                self.socket.settimeout(self.pace.time_left_s())
            try:
                self.unread = self.socket.recv(max(most, READ_AHEAD_BYTES))
            except _socket.timeout:
                if self.pace:           # which tells whether that was too little
                    continue
                raise HostFailed(EXIT_IO_ERROR, "silent for %g s" % self.timeout_s)
            except OSError as error:
                raise HostFailed(EXIT_TRUNCATED, "connection lost: %s" % error.strerror)
            if not self.unread:
                break
            self.pace = self.pace or Pace(min(self.timeout_s, REPLY_WINDOW_S))
            self.pace.count += len(self.unread)
            self.received += len(self.unread)
        piece, self.unread = self.unread[:most], self.unread[most:]
        return piece

    def wait_anew(self):
        """Let the next byte take as long as the first one might."""
        self.pace = None
        self.socket.settimeout(self.timeout_s)

    def check_end(self):
        """Raise WireError if there is more than the reply; does not wait for the end."""
        self.socket.setblocking(False)
        try:
            more = self.unread or self.socket.recv(1)
        except OSError:                 # nothing yet, or a reset
            return
        if more:
            raise WireError(EXIT_PROTOCOL_ERROR, "there is more after the reply")

    def close(self):
        """Hang up; a volunteer at work ends the job then."""
        if self.socket:
            self.socket.close()
        self.socket = self.pace = None
        self.unread = b""


class Pace:
    """Keeps watch over the speed of a transfer, so that a byte now and then does not hold a job
    for ever: in each window of time LEAST_BYTES_PER_S have to pass on an average.

    window_s: the length of a window in seconds; count: the bytes in the present one, to which
    the user of this adds."""

    def __init__(self, window_s):
        """See the class; the first window begins now."""
        import time
        self.window_s, self.clock_s = window_s, time.monotonic
        self.begin_window()

    def begin_window(self):
        """Begin to count anew."""
        self.count, self.end_s = 0, self.clock_s() + self.window_s

    def time_left_s(self):
        """Return the seconds for which to wait for more, above 0; raises HostFailed when too
        little has come in a window that is over."""
        left_s = self.end_s - self.clock_s()
        if left_s > 0:
            return left_s
        if not self.count:
            raise HostFailed(EXIT_IO_ERROR, "silent for %g s" % self.window_s)
        if self.count < LEAST_BYTES_PER_S * self.window_s:
            raise HostFailed(EXIT_IO_ERROR, "too slow: %d bytes in %g s"
                             % (self.count, self.window_s))
        self.begin_window()
        return self.window_s


def remote_command(job, colour, environment):
    """Return the argv for the volunteer: one word that looks like a source, one -o.

    Other daemons find both by their form, and know the language of a suffix only, so that a
    name with an uncommon suffix gets the usual one. -x goes along as the preprocessed form. In
    preprocessed text only gcc tells in which directory the compile is done, so that clang is told
    by an option."""
    form = PREPROCESSED_FORM.get(job.language, job.language)
    name = job.source
    if job.given_language or "." + name.rpartition(".")[2] not in LANGUAGE_OF_SUFFIX:
        name += next(suffix for suffix, language in LANGUAGE_OF_SUFFIX.items()
                     if language == form)
    directory = []
    if job.is_clang and job.debug_option() and not job.has_option("-fdebug-compilation-dir"):
        directory = ["-fdebug-compilation-dir=" + working_directory(environment)]
    return ([job.compiler] + job.there + colour + directory
            + ["-x", form, "-S" if job.assembly else "-c", name,
               "-o", job.output.rpartition("/")[2]])


def pack_command(argv, programs):
    """Return the first half of a request: DIST, perhaps PAGE, ARGC ARGV… programs: see
    list_programs."""
    words = [fsencode(word) for word in argv]
    parts = [pack_header(b"DIST", CHECKED_TEXT_VERSION if programs else PROTOCOL_VERSION)]
    if programs:
        parts += [pack_header(b"PAGE", len(programs)), programs]
    parts.append(pack_header(b"ARGC", len(words)))
    for word in words:
        parts += [pack_header(b"ARGV", len(word)), word]
    return b"".join(parts)


def list_programs(job, environment):
    """Return the entries of the programs that compile a Job's source, for a volunteer to compare
    with its own; b"" where they cannot be listed."""
    try:
        command = read_command(job.argv)
        path = find_compiler(job.compiler, environment.get("PATH", DEFAULT_PATH))
        toolchain = find_toolchain(command, path, environment, memory_directory(environment))
    except (RunLocally, NotByFiles, OSError) as reason:
        debug("%s: the programs are not compared: %s" % (job.source, reason))
        return b""
    fields = b"".join(toolchain.pages.values()).split(b"\0")
    return b"".join(b"%s\0%s\0" % (head, path) for head, path in zip(fields[0::2], fields[1::2])
                    if head[:2] == b"fx")


def send_request(connection, text, programs):
    """Send a request by text: text is the Text; programs: see list_programs. A volunteer that
    hangs up early may have said why, so a broken connection is left for recv_reply to find.

    Raises HostFailed."""
    try:
        connection.cork(1)
        connection.socket.sendall(pack_command(text.argv, programs)
                                  + pack_header(b"DOTI", text.size))
        connection.send_file(text.file, text.size)
        connection.cork(0)
    except (BrokenPipeError, ConnectionResetError) as error:
        debug("%s: the request was not taken whole: %s" % (connection.host, error))
    except OSError as error:
        raise HostFailed(EXIT_IO_ERROR, "cannot send: %s" % error.strerror)


class Reply:
    """The head of a volunteer's answer: status (Unix wait status), stderr and stdout of the
    compiler, and size, the bytes of the object that follows."""

    def __init__(self, status, stderr, stdout, size):
        """See the class."""
        self.status, self.stderr, self.stdout, self.size = status, stderr, stdout, size


def recv_status(connection):
    """Receive STAT; return the Unix wait status. Raises WireError."""
    status = read_header(connection.receive, b"STAT", 0xffff)
    signalled = status & 0x7f
    if signalled == 0x7f or signalled and status >> 8:
        raise WireError(EXIT_PROTOCOL_ERROR, "STAT %#x is no wait status" % status)
    return status


def recv_reply(connection, expected_version):
    """Receive DONE STAT SERR SOUT DOTO up to the object; return the Reply.

    Raises WireError, and HostFailed when the volunteer refuses."""
    receive = connection.receive
    version = read_header(receive, b"DONE", 0xffffffff)
    if version != expected_version:
        raise WireError(EXIT_PROTOCOL_ERROR, "it speaks protocol %d" % version)
    status = recv_status(connection)
    code = status >> 8
    stderr = read_exactly(receive, read_header(receive, b"SERR", MAX_MESSAGE_BYTES), "SERR")
    stdout = read_exactly(receive, read_header(receive, b"SOUT", MAX_MESSAGE_BYTES), "SOUT")
    size = read_header(receive, b"DOTO", MAX_OBJECT_BYTES)
    if status and size:
        raise WireError(EXIT_PROTOCOL_ERROR, "an object of %d bytes with status %#x"
                        % (size, status))
    if code in OWN_EXIT_CODES:
        text = stderr.decode("utf-8", "replace").strip().replace("\n", "; ")
        raise HostFailed(code, "refused: " + (text or "exit code %d" % code)[:2000],
                         refused=True)
    return Reply(status, stderr, stdout, size)


# -------------------------------------------------------------------------------------------
# Tunnel: volunteers over ssh, on which nothing is installed but sshd and Python
#
# What holds:
#   - Each host has one ssh process here, the master of OpenSSH's ControlMaster. It carries
#     connections from a UNIX socket in the directory of working files to the one on which the
#     daemon listens there. A job connects to the socket here, and starts nothing.
#   - Who finds no such socket, or none that leads anywhere, makes the way under a lock: the
#     master, the daemon there (distccd.py travels by itself), the forwarding. Others wait for the
#     lock, and find the way made, or the reason why it cannot be.
#   - Whose first job sends a compiler there holds the same lock meanwhile. Jobs that see it held
#     go elsewhere if they can.
#   - The master ends when it has carried nothing for ten minutes, and so does the daemon. A socket
#     may stay; it refuses connections then, and is replaced.
#   - ssh asks nobody anything: who may not log in without a question is told so, by ssh itself.
#
# LinkBroken Tunnel make_tunnel forget_tunnel Shipment
# -------------------------------------------------------------------------------------------

TUNNEL_IDLE_S = 600
LOGIN_TIMEOUT_S = 10                    # until ssh is connected
SSH_TIMEOUT_S = 60.0                    # until all is done there
MASTER_TIMEOUT_S = 3.0                  # for what the master answers by itself
TUNNEL_WAIT_S = 2 * SSH_TIMEOUT_S       # for another job that makes the way
CONNECT_ATTEMPTS, CONNECT_PAUSE_S = 50, 0.02    # while too many others connect at the same moment
MOST_SSH_WORDS = 500
ANSWER_TO_PROBE = b"DONE"
SSH_OPTIONS = (
    "-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
    "-o", "ConnectTimeout=%d" % LOGIN_TIMEOUT_S, "-o", "ControlMaster=auto",
    "-o", "ControlPersist=%d" % TUNNEL_IDLE_S, "-o", "StreamLocalBindUnlink=yes",
    "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=4")
# The rest comes through stdin, so that no shell there sees it.
REMOTE_COMMAND = 'python3 -I -c "import sys; exec(sys.stdin.buffer.read(%d))"'
REMOTE_PROGRAM = r'''
import os, sys
if sys.version_info < (3, 8):
    sys.exit("Python there is %s, and 3.8 is needed" % sys.version.split()[0])
import contextlib, hashlib, platform, re, socket, subprocess, zlib

def has_script(path):
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as stream:
        return hashlib.blake2b(stream.read(), digest_size=32).hexdigest() == DIGEST
    return False

def take_script(cache, path):
    fresh = "%s.%d" % (path, os.getpid())
    try:
        with open(fresh, "wb") as stream:
            stream.write(zlib.decompress(sys.stdin.buffer.read(SIZE)))
        os.rename(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
    for name in os.listdir(cache):
        if re.fullmatch("[0-9a-f]{64}[.]py", name) and name != os.path.basename(path):
            os.unlink(cache + "/" + name)

def socket_directory(cache):
    # A home may be shared by several machines. A socket's path has at most 107 bytes.
    directory = "%s/run-%s" % (cache, re.sub("[^A-Za-z0-9]", "-", platform.node())[:20])
    if len(directory) <= 85 and re.fullmatch("[A-Za-z0-9/._-]+", directory):
        return directory
    directory = "/tmp/distccd-%d" % os.getuid()
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    facts = os.lstat(directory)
    if facts.st_uid != os.getuid() or facts.st_mode & 0o170077 != 0o040000:
        sys.exit("%s is not this user's alone" % directory)
    return directory

def is_listening(path):
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True

def start_daemon(cache):
    path = "%s/%s" % (socket_directory(cache), DIGEST[:16])
    if is_listening(path):
        return path
    script, log = "%s/%s.py" % (cache, DIGEST), cache + "/log"
    if not has_script(script):
        take_script(cache, script)
    with contextlib.suppress(FileNotFoundError):
        if os.path.getsize(log) > 100000:
            os.unlink(log)
    status = subprocess.call(
        [sys.executable, "-B", script, "--daemon", "--socket", path, "--idle-exit", IDLE_S,
         "--foreign-programs", "--log-file", log, "--log-level", "notice"],
        stdin=subprocess.DEVNULL, stdout=2)
    if status and not is_listening(path):
        sys.exit(status)
    return path

try:
    cache = os.path.expanduser("~/.cache/distccd.py")
    os.makedirs(cache, 0o700, exist_ok=True)
    print("\ndistccd.py listens on " + start_daemon(cache))
except OSError as error:
    sys.exit(str(error))
'''
LISTENS = b"\ndistccd.py listens on "


class LinkBroken(Exception):
    """The way to a host over ssh ended in the middle of a job; the text says how."""


class Tunnel(Connection):
    """A Connection to a volunteer over ssh, through the local end of its tunnel."""

    def __init__(self, host, is_suspect=False):
        """is_suspect: whether the tunnel is to be tried, and made anew if need be, first."""
        super().__init__(host)
        self.is_suspect, self.path = is_suspect, None

    def start(self):
        """Connect if there is a tunnel; faults wait for finish()."""
        try:
            self.path = socket_here(self.host)
        except OSError as error:        # there is no distccd.py, or no directory of working files
            self.fault = error
        else:
            if not self.is_suspect:
                self.connect()

    def connect(self):
        """Connect to the socket of the tunnel."""
        import _socket
        import time
        for _ in range(CONNECT_ATTEMPTS):
            try:
                self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
                self.socket.setblocking(False)
                self.socket.connect(self.path)
                return
            except OSError as error:
                self.fault = error
                self.close()
                if not isinstance(error, BlockingIOError):
                    return
            time.sleep(CONNECT_PAUSE_S)

    def finish(self, timeout_s):
        """Be connected, through a new tunnel if need be; raises HostFailed."""
        if self.path and not self.socket:
            make_tunnel(self.host, self.path)
            self.connect()
        if not self.socket:
            raise HostFailed(EXIT_CONNECT_FAILED, "cannot connect: %s: %s" % (
                self.fault.filename or self.path, self.fault.strerror), reached=False)
        self.timeout_s = timeout_s
        self.socket.settimeout(timeout_s)

    def cork(self, on):
        """Nothing: a UNIX socket has no packets."""


def socket_here(host):
    """Return the path of the local end of a host's tunnel: another one after distccd.py was
    changed, so that a new daemon serves. Raises OSError."""
    facts = posix.stat(daemon_script())
    return tunnel_path(host, "", "%d %d" % (facts.st_mtime_ns, facts.st_size))


def daemon_script():
    """Return the path of the distccd.py that lies beside this script."""
    return __file__[:__file__.rfind("/") + 1] + "distccd.py"


def forget_tunnel(host):
    """Have the next job make the way to a host anew, for this one leads into silence."""
    try:
        posix.unlink(socket_here(host))
    except OSError:                     # another job has done so
        pass


def make_tunnel(host, path):
    """Make the way to a host, unless another job has just made it. path: of its local end.

    Raises HostFailed."""
    import time
    began = time.monotonic()
    lock = None
    try:
        lock = open_shared(tunnel_path(host, ".lock"), posix.O_RDWR)
        wait_for_lock(lock, TUNNEL_WAIT_S)
        if tunnel_answers(path):
            return
        raise_recent_failure(lock, began)
        try:
            build_tunnel(host, path)
        except HostFailed as fault:
            note_failure(lock, str(fault))
            raise
    except WaitedLongEnough:
        raise HostFailed(EXIT_CONNECT_FAILED, "another job takes too long to reach it",
                         reached=False)
    except OSError as error:
        raise HostFailed(EXIT_CONNECT_FAILED, "%s: %s" % (
            error.filename or "ssh", error.strerror or error), reached=False)
    finally:
        if lock is not None:
            posix.close(lock)


def note_failure(lock, reason):
    """Write into the file of the lock why there is no way to the host, and when that was found.
    Raises OSError."""
    import time
    posix.ftruncate(lock, 0)
    posix.pwrite(lock, fsencode("%r %s" % (time.monotonic(), reason)), 0)


def raise_recent_failure(lock, began):
    """Raise HostFailed if another job has found since `began` that there is no way to the host:
    forty jobs that start at once need not all wait for the same answer, nor all tell it."""
    import time
    when, _, reason = fsdecode(posix.pread(lock, 4096, 0)).partition(" ")
    if reason and began < float(when) <= time.monotonic():
        raise HostFailed(EXIT_CONNECT_FAILED, reason, reached=False, is_known=True)


def tunnel_answers(path):
    """Tell whether a daemon answers through a tunnel, here to a version that nobody speaks."""
    import _socket
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        probe.settimeout(MASTER_TIMEOUT_S)
        probe.connect(path)
        probe.sendall(pack_header(b"DIST", 0))
        return probe.recv(len(ANSWER_TO_PROBE)) == ANSWER_TO_PROBE
    except OSError:
        return False
    finally:
        probe.close()


def build_tunnel(host, path):
    """Start ssh and the daemon there as far as they do not run yet, and connect this path with
    the daemon's socket. Raises HostFailed, OSError."""
    control = tunnel_path(host, ".ctl")
    if mode_at(control) and run_ssh(host, ["-O", "check"], "", MASTER_TIMEOUT_S)[0] is None:
        posix.unlink(control)           # it is stopped, and would have us wait
    forwarding = "%s:%s" % (path, start_daemon_there(host))
    run_ssh(host, ["-O", "cancel", "-L", forwarding], "", MASTER_TIMEOUT_S)
    if mode_at(path):
        posix.unlink(path)
    status, _, words = run_ssh(host, ["-O", "forward", "-L", forwarding], "", MASTER_TIMEOUT_S)
    if status == 0 and tunnel_answers(path):
        return
    raise HostFailed(EXIT_CONNECT_FAILED, "ssh cannot forward a UNIX socket: " + words if status
                     else "the daemon there does not answer through ssh; see "
                     "AllowStreamLocalForwarding of its sshd", reached=False)


def start_daemon_there(host):
    """Have distccd.py run on a host; return the path of its socket there. Raises HostFailed,
    OSError."""
    import zlib
    with open(daemon_script(), "rb") as stream:
        script = stream.read()
    deflated = zlib.compress(script, 9)
    program = "DIGEST, SIZE, IDLE_S = %r, %d, '%d'\n%s" % (
        digest_of(script).decode(), len(deflated), TUNNEL_IDLE_S, REMOTE_PROGRAM)
    command = REMOTE_COMMAND % len(program)
    status, said, words = run_ssh(host, [], command, SSH_TIMEOUT_S, program.encode() + deflated)
    path = said.rpartition(LISTENS)[2].rstrip(b"\n").decode("ascii", "replace")
    if status == 0 and LISTENS in said and path.translate(PLAIN_PATH_CHARACTERS).isalnum():
        return path
    raise HostFailed(EXIT_CONNECT_FAILED, words or (
        "ssh ends with status %d" % status if status is not None
        else "no answer within %g s" % SSH_TIMEOUT_S), reached=False)


def run_ssh(host, options, command, timeout_s, data=b""):
    """Run ssh to its end; return (exit status, None when it was given up; stdout, bytes; the
    words of its stderr). data: its stdin. Raises OSError.

    All three are files: the master inherits them, and the end of a pipe would never come."""
    import subprocess
    import tempfile
    argv = (setting("DISTCC_SSH") or "ssh").split() + list(SSH_OPTIONS) + [
        "-o", "ControlPath=" + tunnel_path(host, ".ctl")] + options
    if host.user:
        argv += ["-l", host.user]
    if host.port != SSH_PORT:
        argv += ["-p", str(host.port)]
    argv += [host.name, command] if command else [host.name]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, \
            tempfile.TemporaryFile() as complaints:
        given.write(data)
        given.seek(0)
        process = subprocess.Popen(argv, stdin=given, stdout=said, stderr=complaints, cwd="/",
                                   start_new_session=True)
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        said.seek(0)
        complaints.seek(0)
        return status, said.read(), ssh_words(complaints.read())


def ssh_words(complaints):
    """Return what ssh said (bytes) as one line, without the bars of @ around its warnings."""
    lines = [line.strip() for line in fsdecode(complaints).splitlines()]
    return "; ".join(line for line in lines if line.strip("@ "))[:MOST_SSH_WORDS]


class Shipment:
    """Watches over contents on their way to a host over ssh: if they are many bytes, as a compiler
    is, other jobs go elsewhere meanwhile, and a terminal shows how far it is."""

    LARGE_BYTES = 1000000
    REPORT_S = 5.0

    def __init__(self, host, count):
        """count: of contents."""
        self.host, self.count = host, count
        self.bytes = self.sent_bytes = 0        # as the files are, and as they travel
        self.is_whole, self.lock, self.next_report = False, None, None

    def __enter__(self):
        """Return this; it ends when all is sent, or cannot be."""
        return self

    def add(self, size):
        """A content of so many bytes is about to be sent."""
        import time
        self.bytes += size
        if self.host.by_ssh and self.bytes >= self.LARGE_BYTES and self.next_report is None:
            notice("sending %d files that are new there to %s" % (self.count, self.host))
            self.next_report = time.monotonic() + self.REPORT_S
            self.lock = self.take_lock()

    def report(self, count):
        """So many bytes more have left: say how many there are every few seconds."""
        import time
        self.sent_bytes += count
        if self.next_report is not None and time.monotonic() >= self.next_report:
            notice("sending to %s: %.1f MB so far" % (self.host, self.sent_bytes / 1e6))
            self.next_report = time.monotonic() + self.REPORT_S

    def take_lock(self):
        """Return a descriptor that marks the host as being prepared; None if another job does."""
        try:
            return try_lock(tunnel_path(self.host, ".lock"), posix.O_RDWR)
        except OSError:
            return None

    def __exit__(self, *exception):
        """Let jobs come again, and say that all is sent if it is."""
        if self.lock is not None:
            posix.close(self.lock)
        if self.next_report is not None and self.is_whole:
            notice("sent to %s: %.1f MB, small as %.1f MB" % (
                self.host, self.bytes / 1e6, self.sent_bytes / 1e6))


# -------------------------------------------------------------------------------------------
# Output: what the compiler would have left, as it would have left it
# Target check_files in_doubt merge_messages colour_options
# -------------------------------------------------------------------------------------------

DESCRIPTOR_PATH = "/proc/self/fd/%d"
MOST_DRAFT_NAMES = 20                   # tried one after the other
LINK_ATTEMPTS = 20                      # with other clients that make the same file


class Target:
    """The output file in the making.

    gcc's assembler replaces an object by a new file, save through a dangling link and where an
    empty file is, and cc1 writes assembler text in place; so do we, but nobody sees half a file
    under the target's name. The new file has no name until it is whole (Linux, open(2),
    O_TMPFILE). Where that cannot be, as under PyPy, it grows beside the target as .distcc-NAME,
    locked by its writer: what a killed run leaves behind, the next run of that target removes.
    path: the target; directory: its, with a slash, or ""; replaces: whether a new file takes its
    place; descriptor: where to write, None until that is open; draft: the other name, or
    None."""

    def __init__(self, path, is_object, environment):
        """Open the file if it needs no name: then that is done before the object comes."""
        self.path, self.environment = path, environment
        self.descriptor = self.draft = None
        self.directory, slash, base = path.rpartition("/")
        self.directory += slash
        self.replaces = is_object and is_replaced(self.path)
        self.mode = posix.O_TRUNC
        if self.replaces and hasattr(posix, "O_TMPFILE"):
            self.open_nameless()

    def open_nameless(self):
        """Open a file without a name in the target's directory, if it can get one later."""
        try:
            descriptor = posix.open(self.directory or ".", posix.O_RDWR | posix.O_TMPFILE, 0o666)
        except OSError:
            return
        mask = posix.umask(0o077)
        posix.umask(mask)
        forgotten = posix.fstat(descriptor).st_mode & mask      # by Linux before 6.0, at times
        if forgotten or not posix.access(DESCRIPTOR_PATH % descriptor, posix.W_OK):
            posix.close(descriptor)
        else:
            self.descriptor = descriptor

    def open_other(self):
        """Open the file that has a name, or one elsewhere. Raises OSError."""
        if self.replaces:
            try:
                self.open_draft()
                return
            except OSError as error:
                debug("cannot write beside %s: %s" % (self.path, error.strerror))
        self.replaces = False
        self.descriptor = work_file(self.environment, ".out")

    def open_draft(self):
        """Make and lock the draft: always a new file, for what lies under its name may be a link
        of somebody else's. Another name is taken where that cannot be removed. Raises OSError."""
        first = path = "%s.distcc-%s" % (self.directory, self.path[len(self.directory):][-200:])
        for attempt in range(MOST_DRAFT_NAMES):
            try:
                descriptor = posix.open(path, posix.O_RDWR | posix.O_CREAT | posix.O_EXCL
                                        | posix.O_NOFOLLOW, 0o666)
            except FileExistsError:
                if not remove_leftover(path):
                    path = "%s.%d.%d" % (first, posix.getpid(), attempt)
                continue
            if self.lock_draft(descriptor, path):
                return
        raise FileExistsError(None, "no name is left for a draft", path)

    def lock_draft(self, descriptor, path):
        """Lock a new draft; tell whether it is ours: another may have taken it for a leftover
        between its making and the lock. Raises OSError."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            posix.close(descriptor)
            return False
        except OSError:                 # a file system without flock: nothing stays behind
            posix.unlink(path)
            posix.close(descriptor)
            raise
        if not is_file_at(descriptor, path):
            posix.close(descriptor)
            return False
        self.descriptor, self.draft = descriptor, path
        return True

    def receive(self, connection, size):
        """Fill the file with `size` bytes from the connection. Raises WireError, HostFailed,
        and OSError for the disk."""
        if self.descriptor is None:
            self.open_other()
        missing = size
        while missing:
            piece = connection.receive(min(missing, CHUNK_BYTES))
            if not piece:
                raise WireError(EXIT_TRUNCATED, "connection closed with %d of %d bytes of the "
                                "object missing" % (missing, size))
            write_whole(self.descriptor, piece)
            missing -= len(piece)

    def commit(self):
        """Give the file its name. Raises OSError, and then the target is what it was, or gone,
        or half written where only writing in place is possible.

        The file gets the present time: make takes an object for stale that is older than its
        dependency file, and the compiler writes that first."""
        if not self.replaces:
            write_in_place(self.path, self.mode, content_of(self.descriptor))
            return
        posix.utime(self.descriptor)
        if not (self.draft or self.link()):
            self.copy_to_draft()
        if self.draft:
            self.make_way()
            posix.rename(self.draft, self.path)
            self.draft = None

    def make_way(self):
        """Remove what is at the target, as the assembler does: what replaces another file is
        written to the disk at once by ext4. Raises OSError."""
        try:
            posix.unlink(self.path)
        except FileNotFoundError:
            pass

    def link(self):
        """Give the nameless file its name; tell whether that could be done. Another client with
        the same output may be at it at the same time: then the last one prevails."""
        for _ in range(LINK_ATTEMPTS):
            self.make_way()
            try:
                posix.link(DESCRIPTOR_PATH % self.descriptor, self.path,
                           src_dir_fd=self.descriptor,  # without it link(2) would not follow
                           follow_symlinks=True)
                return True
            except FileExistsError:
                continue
            except OSError as error:
                debug("cannot link %s: %s" % (self.path, error.strerror))
                break
        return False

    def copy_to_draft(self):
        """Have a draft with the content of the nameless file take its place. Raises OSError."""
        nameless = self.descriptor
        try:
            self.open_draft()
            for piece in content_of(nameless):
                write_whole(self.descriptor, piece)
        finally:
            posix.close(nameless)
            if self.descriptor == nameless:
                self.descriptor = None

    def discard(self):
        """Close the file, and remove it if it has not got its name."""
        if self.draft:
            try:
                posix.unlink(self.draft)
            except OSError as error:
                debug("cannot remove %s: %s" % (self.draft, error.strerror))
            self.draft = None
        if self.descriptor is not None:
            posix.close(self.descriptor)
            self.descriptor = None


def is_replaced(path):
    """Tell whether the assembler makes a new file at path, rather than to write into what is
    there: an empty file, or what a dangling link names."""
    try:
        return posix.stat(path).st_size > 0
    except OSError:
        return not mode_at(path, follow_links=False)


def remove_leftover(path):
    """Remove the draft of a run that was killed; tell whether nothing is there any more. What is
    not of ours, or is being written, stays: its writer holds the lock."""
    try:
        descriptor = open_plain(path, posix.O_RDONLY)
    except FileNotFoundError:
        return True
    except OSError:                     # a link, a pipe, or not for us to read
        return False
    try:
        if posix.fstat(descriptor).st_uid != posix.geteuid():
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_file_at(descriptor, path):
            posix.unlink(path)
        return True
    except OSError:
        return False
    finally:
        posix.close(descriptor)


def is_file_at(descriptor, path):
    """Tell whether path still names the open file."""
    try:
        return same_file(posix.fstat(descriptor), posix.lstat(path))
    except OSError:
        return False


def write_whole(descriptor, data):
    """Write all of data; raises OSError, unlike write_fully, for this is the user's file."""
    view = memoryview(data)
    while view:
        view = view[posix.write(descriptor, view):]


def write_in_place(path, mode, pieces):
    """Write pieces of bytes to path, through links, as fopen() does: mode is posix.O_TRUNC for
    its "w", posix.O_APPEND for "a". Raises OSError."""
    target = posix.open(path, posix.O_WRONLY | posix.O_CREAT | mode, 0o666)
    try:
        for piece in pieces:
            write_whole(target, piece)
    finally:
        posix.close(target)


def content_of(descriptor):
    """Yield the whole content of an open file in pieces. Raises OSError."""
    for offset in range(0, posix.fstat(descriptor).st_size, CHUNK_BYTES):
        yield posix.pread(descriptor, CHUNK_BYTES, offset)


def check_files(job):
    """Raise RunLocally for a source that only the compiler itself should open, and for an output
    that it alone knows how to write, or refuses to, as when it is the source."""
    source_mode = mode_at(job.source)
    if source_mode and not stat.S_ISREG(source_mode):
        raise RunLocally("%s: not a plain file" % job.source)      # a pipe can be read but once
    try:
        status = posix.stat(job.output)
        mode = status.st_mode
        if source_mode and same_file(status, posix.stat(job.source)):
            raise RunLocally("%s is source and output" % job.output)
    except OSError:
        if is_directory(job.output[:job.output.rfind("/") + 1] or "."):
            return
        raise RunLocally("%s: no such directory" % job.output)
    if not stat.S_ISREG(mode):
        raise RunLocally("%s: not a plain file" % job.output)


# Failures that the way of compiling may have caused: the assembler's (gcc then deletes the
# object, which the protocol cannot tell), the volunteer's lack of room.
DOUBTFUL_MESSAGES = (
    b"Assembler messages", b"out of memory", b"virtual memory exhausted", b"Killed",
    b"No space left on device", b"File size limit exceeded", b"CPU time limit exceeded",
    b"cannot execute", b"error trying to exec",
    b"signal terminated program", b"internal compiler error", b"Cannot allocate memory")


def in_doubt(job, reply):
    """Tell whether preprocessing, or the volunteer, may have caused a failure, or spoilt the
    messages, in reply: the assembler names its standard input in place of a source in assembler
    language, and a clang that fails removes an older object."""
    if b"{standard input}" in reply.stderr and job.language in ASSEMBLER_LANGUAGES:
        return True
    return reply.status != 0 and (
        job.is_clang or was_cut_short(reply)
        or job.assembly and mode_at(job.output, False)    # gcc has begun to overwrite it
        or job.has_option("-Werror", "-pedantic-errors", "--pedantic-errors")
        or any(message in reply.stderr for message in DOUBTFUL_MESSAGES))


def was_cut_short(reply):
    """Tell whether the compiler there came to its end by a signal, its own or that of a program
    which it started (then drivers exit with 128 + its number), or failed without a word: most
    often the volunteer had no memory left."""
    signalled, code = reply.status & 0x7f, reply.status >> 8
    return bool(signalled) or code > 128 or not reply.stderr


def merge_messages(first, second, environment):
    """Return the preprocessor's messages and then the compiler's, without the lines that both
    print, in the quotes of the user's locale."""
    if first and second:
        printed = set(first.splitlines(True))
        second = without_lines(second, printed)
    if needs_plain_quotes(second, environment):
        for quote in CURLY_QUOTES:
            second = second.replace(quote, b"'")
    return first + second


CURLY_QUOTES = (b"\xe2\x80\x98", b"\xe2\x80\x99")
SPELT_QUOTES = CURLY_QUOTES + (b"\\342\\200\\23",)     # as line markers have them


def needs_plain_quotes(messages, environment):
    """Tell whether messages from there have the quotes of another locale than the user's."""
    return any(quote in messages for quote in CURLY_QUOTES) and not locale_is_utf8(environment)


def quotes_are_mixed(text, reply, environment):
    """Tell whether quotes in the messages may be the user's own, which stay as they are, where
    the compiler's have to be replaced: both look alike."""
    return needs_plain_quotes(reply.stderr, environment) and any(
        quote in window for window in text_windows(text) for quote in SPELT_QUOTES)


def without_lines(text, printed):
    """Return text less the lines in `printed`; "In file included from" and its continuation go
    with the line that they lead to, whatever has been printed."""
    kept = context = b""
    for line in text.splitlines(True):
        if line.startswith((b"In file included from", b"       ")):
            context += line
            continue
        if line not in printed:
            kept += context + line
        context = b""
    return kept + context


def locale_is_utf8(environment):
    """Tell whether a compiler started with this environment writes UTF-8."""
    import _locale
    name = next((environment[variable] for variable in ("LC_ALL", "LC_CTYPE", "LANG")
                 if environment.get(variable)), "C")
    try:
        _locale.setlocale(_locale.LC_CTYPE, name)
    except (_locale.Error, ValueError): # not installed: the compiler falls back to C as well
        return False
    return _locale.nl_langinfo(_locale.CODESET).upper() in ("UTF-8", "UTF8")


def colour_options(job, environment):
    """Return the option that asks for the colours which gcc would have chosen: for a terminal
    that knows them, unless the command line decides."""
    decided = job.has_option("-fdiagnostics-plain-output", "-fdiagnostics-color",
                             "-fno-diagnostics-color", "-fcolor-diag", "-fno-color-diag")
    if decided and not job.has_option("-fdiagnostics-color=auto"):
        return []
    plain = environment.get("TERM", "dumb") == "dumb" or environment.get("GCC_COLORS") == ""
    return [] if plain or not posix.isatty(2) else ["-fdiagnostics-color=always"]


# -------------------------------------------------------------------------------------------
# By files: the command as it is, with all that it may read
# FilesJob prepare_files send_files_job recv_answer recv_results commit_results compile_by_files
# -------------------------------------------------------------------------------------------

# What compilers read of the environment, besides LC_…. Nothing else leaves this machine.
VARIABLES = frozenset("""LANG LANGUAGE TZ SOURCE_DATE_EPOCH GCC_COLORS GCC_URLS TERM_URLS TERM
    COLUMNS NO_COLOR CLICOLOR_FORCE PWD PATH CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH
    OBJC_INCLUDE_PATH OBJCPLUS_INCLUDE_PATH LIBRARY_PATH COLORTERM VTE_VERSION WT_SESSION
    KONSOLE_VERSION TERM_PROGRAM POSIXLY_CORRECT
    DEPENDENCIES_OUTPUT SUNPRO_DEPENDENCIES""".split())
# With one of these set, a compiler is another one, or does more than its command line says.
DECIDING_VARIABLES = (
    "GCC_EXEC_PREFIX", "COMPILER_PATH", "GCC_COMPARE_DEBUG", "GCC_EXTRA_DIAGNOSTIC_OUTPUT",
    "GCC_ROOT", "CCC_OVERRIDE_OPTIONS", "CCC_ADD_ARGS", "CC_PRINT_OPTIONS", "CC_PRINT_HEADERS",
    "CC_LOG_DIAGNOSTICS", "CC_PRINT_PROC_STAT", "CC_PRINT_INTERNAL_STAT", "RC_DEBUG_OPTIONS",
    "AS_SECURE_LOG_FILE", "LOCPATH", "LD_PRELOAD", "LD_LIBRARY_PATH",
    "MACOSX_DEPLOYMENT_TARGET", "CLANG_CONFIG_FILE_USER_DIR")
NO_FILE = "/dev/null"                   # it is in every root
TIOCGWINSZ = 0x5413 if sys.platform == "linux" else 0x40087468
CLOCK_MACROS = (b"__DATE__", b"__TIME__")
PROFILE_OPTIONS = ("-fprofile-use", "-fprofile-instr-use", "-fprofile-sample-use",
                   "-fbranch-probabilities", "-fauto-profile", "-fprofile-partial")
TERMINFO_DIRECTORIES = ("/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo")
PROFILE_SUFFIXES = (".gcda", ".profdata", ".afdo", ".prof")
# A failure with one of these words may be due to a file that was not sent.
MISSING_FILE_WORDS = (b"No such file or directory", b"file not found", b"can't open",
                      b"cannot open", b"cannot find", b"could not find")
# One with these, to the volunteer's lack of room.
MACHINE_WORDS_OF_FAILURE = (
    b"out of memory", b"memory exhausted", b"Cannot allocate memory", b"std::bad_alloc",
    b"Killed signal", b"No space left on device", b"Disk quota exceeded", b"cannot execute",
    b"File size limit exceeded", b"CPU time limit exceeded", b"error trying to exec",
    b"Resource temporarily unavailable", b"Too many open files", b"Read-only file system")
FILES_SILENCE_S = 4 * LIFE_INTERVAL_S   # of a volunteer that should say that it is at work
MOST_ROUNDS = 8                         # of its asking for more
MOST_NOTE_BYTES = 4096
DEFLATE_LEVEL = 3                       # three times as fast as 6, and a tenth larger
INPUT_SUFFIXES = frozenset(LANGUAGE_OF_SUFFIX).union(HEADER_SUFFIXES)
SAVED_SUFFIXES = (".i", ".ii", ".mi", ".mii", ".s")


class TextOnly(Exception):
    """The volunteer does no jobs by files; the text says why. places: how many it has, as text, if
    it is one of ours, else ""."""

    def __init__(self, reason, places=""):
        """See the class."""
        super().__init__(reason)
        self.places = places


class FilesJob:
    """A job by files, as it is sent.

    command: the Command; argv: its words as they travel; cwd: absolute, bytes; source: what
    messages call the job; variables: [NAME=VALUE]; lister: of the entries of this job alone;
    lists: the FileList of the toolchain and the Inputs, for each language one; contents: {digest:
    bytes} of what goes along unasked; size: bytes of work, about; sent, lacked: bytes sent,
    contents asked for."""

    def __init__(self, command, environment):
        """Raises NotByFiles, OSError."""
        self.command, self.environment = command, environment
        path = find_compiler(command.compiler, environment.get("PATH", DEFAULT_PATH))
        self.cwd = fsencode(working_directory(environment))
        self.lister = Lister(self.cwd)
        self.lister.follow(fsencode(path))
        self.path = path if path[:1] == "/" else "%s/%s" % (fsdecode(self.cwd), path)
        self.source = command.sources[0][0]
        self.lists, self.contents = [], {}
        self.memories = []              # [(HeaderMemory, [path of a source])]
        self.size = self.sent = self.lacked = 0
        self.is_answered = False
        # gcc appends a rule to a file that one of these names (gcc manual, "Environment
        # Variables"); others may do so at the same time.
        self.appended = [environment[name].partition(" ")[0] for name in DEPENDENCY_VARIABLES
                         if environment.get(name)]

    def add_made_file(self, path, text):
        """Add a file that is not here, but shall be there. path, text: bytes."""
        digest = digest_of(text)
        self.contents[digest] = text
        self.lister.entries[path] = b"f- %s %x 0 0\0%s\0" % (digest, len(text), path)

    def add_headers(self, directory, configuration, sources):
        """Add what sources of one language include. directory: of memories; sources: [(path,
        text)]. Raises OSError."""
        forced = [fsencode(name) for name in self.command.included]
        definitions = [split_definition(each) for each in self.command.definitions]
        memory = HeaderMemory(directory, configuration)
        inputs = find_inputs(memory, self.lister, sources, forced, definitions)
        self.memories.append((memory, [path for path, _ in sources]))
        if not inputs.is_certain and not all(is_asked(memory, self.lister, path)
                                             for path, _ in sources):
            self.ask_for_missing()
            inputs = find_inputs(HeaderMemory(directory, configuration), self.lister, sources,
                                 forced, definitions)
        self.lists.append(inputs)
        for digest in inputs.fresh:
            self.contents[digest] = inputs.pages[digest]

    def ask_for_missing(self):
        """Have the compiler say which files the sources include, for the next try; tell whether
        it did. Raises OSError."""
        answers = [ask_compiler(memory, self.lister, self.command.preprocessor_words, source)
                   for memory, sources in self.memories for source in sources]
        return all(answers)

    def content_of(self, digest):
        """Return the content that has this digest. Raises RunLocally when it has changed, and
        WireError when the job has nothing to do with it."""
        if digest in self.contents:
            return self.contents[digest]
        if digest == digest_of(b""):    # of files whose content does not count, too
            return b""
        paths = self.lister.paths.get(digest, ())
        for each in self.lists:
            if digest in each.pages:
                return each.pages[digest]
            paths = paths or each.paths_of(digest)
        if not paths:
            raise WireError(EXIT_PROTOCOL_ERROR, "it asks for what is no part of the job")
        content, _ = read_settled(paths[0])
        if digest_of(content) != digest:
            raise RunLocally("%s changes while it is sent" % fsdecode(paths[0]))
        return content


def prepare_files(command, environment):
    """Return the FilesJob of a Command, with all that it may read. Raises NotByFiles, RunLocally,
    OSError."""
    for variable in DECIDING_VARIABLES:
        if variable in environment:
            raise NotByFiles("%s is set" % variable)
    check_command_files(command)
    job = FilesJob(command, environment)
    directory = memory_directory(environment)
    # Runs of the compiler that only ask it something leave no rule behind.
    asking = {name: value for name, value in environment.items()
              if name not in DEPENDENCY_VARIABLES}
    toolchain = find_toolchain(command, job.path, asking, directory)
    job.is_clang = toolchain.about == "clang"
    job.argv, specs = resolve_native(command, job.path, job.is_clang, asking)
    if specs:
        job.add_made_file(*map(fsencode, specs))
    job.variables = variables_for(environment, job.is_clang)
    job.lists.append(toolchain)
    texts = list_own_files(job, environment)
    identity = b"".join(toolchain.pages)
    for language, sources in texts.items():
        configuration = SearchConfiguration(
            job.path, command.compiler, identity, language, command.search_words, asking,
            job.lister)
        job.add_headers(directory, configuration, sources)
    return job


def split_definition(text):
    """Return (name, value) of what stands after -D, as bytes."""
    name, _, value = fsencode(text).partition(b"=")
    return name, value


def list_own_files(job, environment):
    """List what this job alone reads, and the places where it writes; return {language: [(path,
    text)]} of its sources. Raises RunLocally, OSError."""
    command, lister = job.command, job.lister
    texts = {}
    for name in command.outputs() + job.appended:
        if mode_at(name):
            lister.add_emptied(fsencode(name))
        else:
            lister.add(fsencode(name.rpartition("/")[0] or ("/" if name[:1] == "/" else ".")))
    dated = "SOURCE_DATE_EPOCH" not in environment
    if dated and any(fsdecode(macro) in word for macro in CLOCK_MACROS for word in command.words):
        raise RunLocally("an option notes the time of the compile")
    for name, language in command.sources:
        text, digest = lister.read(fsencode(name))
        if dated and any(macro in text for macro in CLOCK_MACROS):
            raise RunLocally("%s: it notes the time of the compile" % name)
        job.contents[digest] = text
        job.size += len(text)
        spoken = base_language(language)
        spoken = "assembler-with-cpp" if spoken == "assembler" else spoken
        texts.setdefault(spoken, []).append((fsencode(name), text))
    for name in command.response_files + command.values:
        directory = name.rpartition("/")[0]
        if mode_at(name) and name != NO_FILE:
            lister.add(fsencode(name))
        elif directory and is_directory(directory):     # something may be written there
            lister.add(fsencode(directory))
    if any(word.startswith(PROFILE_OPTIONS) for word in command.words):
        list_profiles(command, lister)
    terminal = environment.get("TERM", "")
    if posix.isatty(2) and terminal and "/" not in terminal:    # clang asks for its colours
        for directory in TERMINFO_DIRECTORIES:
            name = "%s/%s/%s" % (directory, terminal[0], terminal)
            if mode_at(name):
                lister.add(fsencode(name))
    return texts


def list_profiles(command, lister):
    """List the profiles that a compile may look for: in the directories of its outputs and in
    those that are named."""
    directories = {name.rpartition("/")[0] or "." for name in command.outputs()} | {"."}
    directories.update(name for name in command.values if is_directory(name))
    for directory in sorted(directories):
        for name in names_in(directory):
            if name.endswith(PROFILE_SUFFIXES):
                lister.add(fsencode("%s/%s" % (directory, name)))


def check_command_files(command):
    """Raise RunLocally for a source that the compiler alone should open, and for an output that
    it alone knows how to write."""
    sources = [status_of_source(name) for name, _ in command.sources]
    for name in command.outputs():
        try:
            status = posix.lstat(name)
        except OSError:
            directory = name.rpartition("/")[0] or ("/" if name[:1] == "/" else ".")
            if not is_directory(directory):
                raise RunLocally("%s: no such directory" % name)
            continue
        if not stat.S_ISREG(status.st_mode):
            raise RunLocally("%s: not a plain file" % name)
        if any(same_file(status, source) for source in sources):
            raise RunLocally("%s is source and output" % name)
    for name in command.response_files + command.included + command.values:
        mode = name != NO_FILE and mode_at(name)
        if mode and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise RunLocally("%s: not a plain file" % name)     # it may be read but once


def status_of_source(name):
    """Return what stat says of a source; raises RunLocally unless it is a plain file."""
    try:
        status = posix.stat(name)
    except (OSError, ValueError) as error:
        raise RunLocally("%s: %s" % (name, getattr(error, "strerror", None) or error))
    if not stat.S_ISREG(status.st_mode):
        raise RunLocally("%s: not a plain file" % name)
    return status


def working_directory(environment):
    """Return the current directory as compilers name it: $PWD if it is that."""
    here = environment.get("PWD", "")
    try:
        if here[:1] == "/" and same_file(posix.stat(here), posix.stat(".")):
            return here
    except OSError:
        pass
    return posix.getcwd()


def variables_for(environment, is_clang):
    """Return the variables, NAME=VALUE, that the command gets there.

    gcc prints the day and the time for a header that asks by SOURCE_DATE_EPOCH, if that is set,
    and as Greenwich has them (gcc manual, "Environment Variables"): so it gets ours, moved by our
    distance from Greenwich, for the volunteer's clock and time zone are its own."""
    chosen = ["%s=%s" % (name, value) for name, value in environment.items()
              if name in VARIABLES or name[:3] == "LC_"]
    width = terminal_width()
    if width and "COLUMNS" not in environment and not is_clang:
        chosen.append("COLUMNS=%d" % width)     # gcc asks its stdin, which is no terminal there
    if "SOURCE_DATE_EPOCH" not in environment and not is_clang:
        import time
        now = int(time.time())
        chosen.append("SOURCE_DATE_EPOCH=%d" % (now + time.localtime(now).tm_gmtoff))
    return chosen


def terminal_width():
    """Return the width of the terminal that is our stdin; 0 where stdin or stderr is none."""
    if not (posix.isatty(2) and posix.isatty(0)):
        return 0
    try:
        size = fcntl.ioctl(0, TIOCGWINSZ, bytes(8))
    except OSError:
        return 0
    return int.from_bytes(size[2:4], sys.byteorder)


def is_loopback(host):
    """Tell whether a host is this machine, so that bytes cost nothing."""
    return not host.by_ssh and (host.name.startswith("127.") or host.name == "::1")


# --- what is sent ---

def send_files_job(connection, job, deflate):
    """Send a FilesJob; deflate: whether contents and results had better be small.

    Raises HostFailed."""
    mask = posix.umask(0o077)
    posix.umask(mask)
    flags = FLAG_DEFLATE * deflate + FLAG_TERMINAL * posix.isatty(2)
    parts = [pack_header(b"DIST", FILES_VERSION), pack_header(b"FLAG", flags)]
    parts += pack_list(b"ARGC", b"ARGV", [fsencode(word) for word in job.argv])
    parts += pack_bytes(b"CWDD", job.cwd)
    parts += pack_list(b"ENVC", b"ENVV", [fsencode(each) for each in job.variables])
    parts.append(pack_header(b"UMSK", mask))
    parts += pack_bytes(b"PAGE", job.lister.page())
    parts += pack_bytes(b"LIST", b"".join([b"%s %x\n" % each for its in job.lists
                                           for each in its.references]))
    for digest, content in job.contents.items():
        parts += pack_content(digest, content, deflate)
    parts.append(pack_header(b"SENT", 0))
    send_parts(connection, job, parts)


def pack_bytes(token, data):
    """Return the parts of a packet with a body."""
    return [pack_header(token, len(data)), data]


def pack_list(count_token, token, items):
    """Return the parts of the packets that hold a list of bytes."""
    parts = [pack_header(count_token, len(items))]
    for item in items:
        parts += pack_bytes(token, item)
    return parts


def pack_content(digest, content, deflate):
    """Return the parts of the packet that holds a content, deflated where that pays."""
    if deflate and len(content) >= MIN_DEFLATED_BYTES:
        import zlib
        return pack_bytes(b"ZBDY", b"%s%08x%s" % (digest, len(content),
                                                  zlib.compress(content, DEFLATE_LEVEL)))
    return [pack_header(b"BODY", len(digest) + len(content)), digest, content]


def send_parts(connection, job, parts, on_sent=None):
    """Send bytes; a volunteer that hangs up early may have said why, which recv_answer finds.

    Tell whether all was taken. on_sent(count) is called now and then. Raises HostFailed."""
    data = b"".join(parts)
    job.sent += len(data)
    try:
        connection.cork(1)
        send_patiently(connection, data, on_sent)
        connection.cork(0)
        return True
    except (BrokenPipeError, ConnectionResetError) as error:
        debug("%s: the request was not taken whole: %s" % (connection.host, error))
        return False
    except OSError as error:
        raise HostFailed(EXIT_IO_ERROR, "cannot send: %s" % (error.strerror or error))


def send_patiently(connection, data, on_sent=None):
    """Send bytes, for as long as some are taken within each time-out: a compiler may take minutes
    on a slow line, and sendall() would bound them all together. on_sent: see send_parts(). Raises
    OSError."""
    view = memoryview(data)
    while view:
        count = connection.socket.send(view)
        view = view[count:]
        if on_sent:
            on_sent(count)


def send_needed(connection, job, digests, deflate):
    """Send the contents that the volunteer lacks: digests, of 64 hex digits each, one after the
    other. Raises WireError, HostFailed, RunLocally."""
    if len(digests) % DIGEST_DIGITS:
        raise WireError(EXIT_PROTOCOL_ERROR, "NEED of %d bytes" % len(digests))
    job.lacked += len(digests) // DIGEST_DIGITS
    with Shipment(connection.host, len(digests) // DIGEST_DIGITS) as shipment:
        for at in range(0, len(digests), DIGEST_DIGITS):
            digest = digests[at:at + DIGEST_DIGITS]
            content = job.content_of(digest)
            shipment.add(len(content))
            if not send_parts(connection, job, pack_content(digest, content, deflate),
                              shipment.report):
                return
        shipment.is_whole = True
    send_parts(connection, job, [pack_header(b"SENT", 0)])


# --- what comes back ---

ANSWER_TOKENS = {b"LIFE": 0, b"NEED": MAX_NEED_BYTES, b"DONE": 0xffffffff}
CONTENT_TOKENS = {b"DATA": MAX_FILE_BYTES, b"ZDAT": MAX_FILE_BYTES}


def recv_answer(connection, job, deflate):
    """Give the volunteer what it asks for, until it has done the job; return the Answer.

    Raises WireError, HostFailed, TextOnly, RunLocally when a file has changed meanwhile."""
    rounds = 0
    while True:
        token, number = read_one_of(connection.receive, ANSWER_TOKENS)
        job.is_answered = True
        if token == b"DONE":
            return recv_outcome(connection, number)
        connection.wait_anew()          # it is at work, for as long as that takes
        if token == b"NEED":
            rounds += 1
            if rounds > MOST_ROUNDS:
                raise WireError(EXIT_PROTOCOL_ERROR, "it asks for files again and again")
            send_needed(connection, job, read_exactly(connection.receive, number, "NEED"), deflate)


class Answer:
    """The head of an answer by files: status (Unix wait status), stderr and stdout of the command,
    and note: {name: value}, what the daemon says of itself."""

    def __init__(self, status, stderr, stdout, note):
        """See the class."""
        self.status, self.stderr, self.stdout, self.note = status, stderr, stdout, note


def recv_outcome(connection, version):
    """Receive what follows DONE, up to the results; return the Answer.

    Raises WireError; HostFailed when the volunteer refuses, TextOnly when it refuses all such
    jobs."""
    receive = connection.receive
    status = recv_status(connection)
    stderr = read_exactly(receive, read_header(receive, b"SERR", MAX_MESSAGE_BYTES), "SERR")
    stdout = read_exactly(receive, read_header(receive, b"SOUT", MAX_MESSAGE_BYTES), "SOUT")
    reason = stderr.decode("utf-8", "replace").strip().replace("\n", "; ")[:2000]
    if version != FILES_VERSION:
        raise TextOnly(reason or "it speaks protocol %d" % version)
    words = read_exactly(receive, read_header(receive, b"NOTE", MOST_NOTE_BYTES), "NOTE")
    note = dict(word.partition("=")[::2] for word in words.decode("latin-1").split())
    if status >> 8 in OWN_EXIT_CODES:
        if note.get("way") == "text":
            raise TextOnly(reason, note.get("places", ""))
        raise HostFailed(status >> 8, "refused: " + (reason or "exit code %d" % (status >> 8)),
                         refused=True)
    return Answer(status, stderr, stdout, note)


class Inflater:
    """What a Connection is to the reader of a content, for one that comes deflated."""

    def __init__(self, connection, packed_bytes):
        """packed_bytes: how many are to come."""
        import zlib
        self.connection, self.left = connection, packed_bytes
        self.inflater = zlib.decompressobj()
        self.packed = b""
        self.error = zlib.error

    def receive(self, most):
        """Return 1 to `most` bytes, b"" at the end. Raises WireError, HostFailed."""
        while True:
            try:
                piece = self.inflater.decompress(self.packed, most)
            except self.error as error:
                raise WireError(EXIT_PROTOCOL_ERROR, "a content is garbled: %s" % error)
            self.packed = self.inflater.unconsumed_tail
            if piece or self.inflater.eof:
                return piece
            if not self.packed:
                if not self.left:
                    return b""
                self.packed = self.connection.receive(min(self.left, CHUNK_BYTES))
                if not self.packed:
                    return b""
                self.left -= len(self.packed)


def recv_results(connection, places, environment, results):
    """Receive the files that the command has written, and append [(path, Target)] to results; the
    Target is None where it has removed a file. places: the OutputPlaces.

    Raises WireError, HostFailed, OSError."""
    receive = connection.receive
    for _ in range(read_header(receive, b"FILC", MAX_RESULTS)):
        length = read_header(receive, b"NAME", MAX_PATH_BYTES)
        path = read_exactly(receive, length, "NAME")
        mode = read_header(receive, b"MODE", 0o777)
        if path in places.sources or path in places.inputs or not mode and has_other_names(path):
            raise RunLocally("%s: it is written over, or removed under one of its names"
                             % fsdecode(path))
        if not places.allow(path):
            raise HostFailed(EXIT_PROTOCOL_ERROR, "it sends a file that the command has no "
                             "business with: %s" % fsdecode(path))
        target = Target(fsdecode(path), path in places.objects, environment) if mode else None
        if target and path in places.appended:
            target.mode = posix.O_APPEND
        results.append((path, target))
        if target:
            recv_content(connection, target)


def has_other_names(path):
    """Tell whether a file, or a link, has another name by which its content may be seen."""
    try:
        status = posix.lstat(path)
    except OSError:
        return False
    return status.st_nlink > 1 or stat.S_ISLNK(status.st_mode)


def recv_content(connection, target):
    """Fill a Target with the content of the next packet. Raises as recv_results does."""
    token, number = read_one_of(connection.receive, CONTENT_TOKENS)
    if token == b"DATA":
        target.receive(connection, number)
        return
    digits = read_exactly(connection.receive, 8, "ZDAT")
    if digits.translate(None, b"0123456789abcdef") or number < 8:
        raise WireError(EXIT_PROTOCOL_ERROR, "ZDAT without a length")
    if int(digits, 16) > MAX_FILE_BYTES:
        raise WireError(EXIT_PROTOCOL_ERROR, "ZDAT of %d bytes" % int(digits, 16))
    inflater = Inflater(connection, number - 8)
    target.receive(inflater, int(digits, 16))
    if inflater.receive(1) or inflater.left or inflater.inflater.unused_data:
        raise WireError(EXIT_PROTOCOL_ERROR, "a content is longer than announced")


class OutputPlaces:
    """Where a command may write: a volunteer is not trusted to say so. All paths are bytes.

    objects: paths of the objects, which replace older ones; made: those of all outputs that are
    known before; named: what stands on the command line; directories: where further files may
    appear whose names begin with one of `stems`; dumps: how paths of dumps begin, before that."""

    def __init__(self, job):
        """job: the FilesJob."""
        command = job.command
        made = [place_of(name, job.lister) for name in command.outputs()]
        self.objects = frozenset(() if command.assembly else made[:len(command.sources)])
        self.dumps = command.dump_directory and place_of(command.dump_directory, job.lister)
        self.appended = frozenset(place_of(name, job.lister) for name in job.appended)
        self.made = self.appended.union(made)
        if command.prototypes:          # a header, as a rule
            self.made |= {place_of(command.prototypes, job.lister)}
        self.named = frozenset(place_of(name, job.lister) for name in command.values)
        self.directories = frozenset([job.lister.cwd] + [parent_of(path) for path in made])
        names = [fsdecode(path) for path in made] + [name for name, _ in command.sources]
        names += [name + "." for name in command.dump_bases]
        stems = {without_suffix(name.rpartition("/")[2]) for name in names}
        self.stems = tuple(fsencode(stem + mark) for stem in stems if stem for mark in ".-")
        self.sources = frozenset(place_of(name, job.lister) for name, _ in command.sources)
        self.inputs = frozenset(path for paths in job.lister.paths.values() for path in paths)
        self.saves_temporaries = any("save-temps" in word for word in command.words)

    def allow(self, path):
        """Tell whether the command may have written, or removed, the file at a path."""
        directory, slash, base = path.rpartition(b"/")
        if path[:1] != b"/" or b"\0" in path or base in (b"", b".", b"..") \
                or path in self.sources or not is_canonical(directory):
            return False
        mode = mode_at(path, follow_links=False)
        if mode and not stat.S_ISREG(mode):
            return False
        if path in self.made:
            return True
        suffix = fsdecode(base[base.rfind(b"."):]) if b"." in base else ""
        if suffix in INPUT_SUFFIXES and not (self.saves_temporaries and suffix in SAVED_SUFFIXES):
            return False
        return path in self.named \
            or (directory or b"/") in self.directories and base.startswith(self.stems) \
            or bool(self.dumps) and path.startswith(self.dumps) \
            and path[len(self.dumps):].lstrip(b"/").startswith(self.stems)


def is_canonical(directory):
    """Tell whether an absolute path, in bytes, is that of a directory by its one true name."""
    try:
        return trace_path(b"/", directory, {}) == (directory or b"/", [], b"")
    except (OSError, ValueError):
        return False


def place_of(name, lister):
    """Return the absolute path, in bytes, of what is called `name`, or would be if it were made:
    through the links on the way."""
    directory, slash, base = fsencode(name).rpartition(b"/")
    if base in (b"", b".", b".."):
        directory, base = fsencode(name), b""
    end, _, missing = trace_path(lister.cwd, directory + slash, lister.known)
    if missing:
        return end.rstrip(b"/") + b"/" + missing + b"/"     # no file is there
    return end.rstrip(b"/") + b"/" + base if base else end


def commit_results(results):
    """Give the files that the command has written their places, in the order in which it left
    them. Raises OSError, as a rule before there is any."""
    for path, target in results:
        if mode_at(path) and not posix.access(path, posix.W_OK) and target \
                and not target.replaces:
            raise OSError(None, "not writable", fsdecode(path))
    results.sort(key=lambda result: bool(result[1]) and result[1].mode == posix.O_APPEND)
    for path, target in results:            # what is appended comes last: it cannot be undone
        if target:
            target.commit()
        else:
            try:
                posix.unlink(path)
            except FileNotFoundError:
                pass


class Incomplete(Exception):
    """The command failed there, perhaps because a file was not sent."""


def compile_by_files(job, connection, environment, on_answer):
    """Have the volunteer do a FilesJob, and leave what the command would have left; return (exit
    status, {name: value}: what the daemon says of itself, seconds). on_answer() is called when the
    command has ended there.

    Raises WireError, HostFailed, TextOnly, Incomplete, RunLocally; then nothing has changed."""
    import time
    deflate = not is_loopback(connection.host)
    results = []
    try:
        started = time.monotonic()
        send_files_job(connection, job, deflate)
        answer = recv_answer(connection, job, deflate)
        seconds = time.monotonic() - started
        on_answer()
        check_failure(answer)
        places = OutputPlaces(job)
        recv_results(connection, places, environment, results)
        connection.check_end()
        written = sum(target is not None for _, target in results)
        # What -S makes of an assembler's source is printed.
        if not answer.status and written < (len(places.objects) or not answer.stdout):
            raise WireError(EXIT_PROTOCOL_ERROR, "success without an object")
        try:
            commit_results(results)
        except OSError as error:
            raise RunLocally("%s: cannot be written: %s" % (error.filename or job.source,
                                                            error.strerror))
    finally:
        for _, target in results:
            if target:
                target.discard()
    write_fully(1, answer.stdout)
    write_fully(2, answer.stderr)
    debug("%s: by files on %s: %d bytes out, %d bytes in, %.3f s; it says: %s" % (
        job.source, connection.host, job.sent, connection.received, seconds,
        " ".join("%s=%s" % each for each in sorted(answer.note.items()))))
    signalled = answer.status & 0x7f
    return 128 + signalled if signalled else answer.status >> 8, answer.note, seconds


def check_failure(answer):
    """Raise Incomplete or RunLocally where a failure may be due to the way, or to the
    volunteer."""
    if not answer.status:
        return
    if answer.status & 0x7f or answer.status >> 8 > 128 or not answer.stderr.strip() \
            or any(words in answer.stderr for words in MACHINE_WORDS_OF_FAILURE):
        raise RunLocally("the command ended there for no reason of its own")
    if any(words in answer.stderr for words in MISSING_FILE_WORDS):
        raise Incomplete


# -------------------------------------------------------------------------------------------
# Local: run the command here, as this process
# reset_signals become run_here
# -------------------------------------------------------------------------------------------

def reset_signals():
    """Undo what CPython does to signals: exec passes ignored ones on, and then `gcc -E | head`
    fails on a closed pipe."""
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    for number in ENDING_SIGNALS:       # one that has just come is obeyed here, not lost in exec
        if _signal.getsignal(number) is on_ending_signal:
            _signal.signal(number, _signal.SIG_DFL)


def become(path, argv, environment):
    """Become the program at path, which may be a script without #!, as execvp takes it. Raises
    OSError."""
    try:
        posix.execve(path, argv, environment)
    except OSError as error:
        import errno
        if error.errno != errno.ENOEXEC:
            raise
    posix.execve("/bin/sh", ["sh", path] + argv[1:], environment)


def run_here(argv, environment):
    """Become the command; does not return. Raises Fatal when there is no such program."""
    path = find_program(argv[0], environment.get("PATH", DEFAULT_PATH))
    if path is None:
        raise Fatal(EXIT_COMPILER_MISSING, "%s: not found in PATH" % argv[0])
    debug("running here: " + " ".join(argv))
    reset_signals()
    try:
        become(path, argv, environment)
    except OSError as error:
        import errno
        code = EXIT_OUT_OF_MEMORY if error.errno == errno.ENOMEM else EXIT_COMPILER_MISSING
        raise Fatal(code, "%s: cannot run %s: %s" % (argv[0], path, error.strerror))


# -------------------------------------------------------------------------------------------
# Build: the whole policy
# build distribute VolunteerSearch compile_by_text finish_job
# -------------------------------------------------------------------------------------------

def build(argv, environment):
    """Do what argv asks: return the exit status, or become the command here.

    Raises Fatal when there is no such command, Interrupted when a signal ends us."""
    has_slot = False
    try:
        try:
            return distribute(argv, environment)
        except OSError as error:        # in our own files: the user's are dealt with
            raise HostFailed(EXIT_IO_ERROR, "%s: %s: %s" % (
                argv[-1], error.filename or "working files", error.strerror))
    except RunLocally as reason:
        debug("%s runs here: %s" % (argv[0], reason))
        has_slot = reason.has_slot
    except HostFailed as fault:
        if environment.get("DISTCC_FALLBACK") == "0":
            raise Fatal(fault.code, "%s; DISTCC_FALLBACK=0 forbids to run it here" % fault)
        (debug if fault.is_known else warn)("%s; running it here" % fault)
    except Exception as bug:            # no fault of ours stops a build or prints a traceback
        warn("%s: internal error, please report it: %s; running it here"
             % (argv[-1], describe_bug(bug)))
    try:
        if makes_file(argv) and not has_slot:
            wait_for_own_slot(environment)
    except Exception as bug:            # nor does one in the making good of another
        debug("no slot of this machine: " + describe_bug(bug))
    run_here(argv, environment)


def describe_bug(bug):
    """Return one line on an exception that nobody foresaw, with the place of its origin."""
    if isinstance(bug, OSError):
        return "%s: %s" % (bug.filename, bug.strerror) if bug.filename else str(bug)
    place = bug.__traceback__
    while place.tb_next:
        place = place.tb_next
    return "%r in line %d" % (bug, place.tb_lineno)


def makes_file(argv):
    """Tell whether a command compiles or links: all else never waits for a slot here. A pipe
    between two of us would stall if -E or a source on standard input waited."""
    words = argv[1:]
    return any(word[:1] != "-" for word in words) and not any(
        word in ("-", "-M", "-MM") or classify_option(word)[1] == NO_OBJECT for word in words)


def distribute(argv, environment):
    """Have a command done on a volunteer, by files if that can be, else by text; return the exit
    status.

    Raises RunLocally when it had better run here, HostFailed when no volunteer did it; then
    nothing has been printed, and no file written."""
    by_text = environment.get("DISTCC_WAY") == "text"
    command = scan_for_text(argv, environment) if by_text else read_command(argv)
    source = command.source if by_text else command.sources[0][0]
    hosts = known_hosts(source, environment)
    nested = environment[RECURSION_GUARD] != "1"        # our caller may hold the last slot here
    candidates = [host for host in hosts if not (host.in_place and nested)]
    if all(host.in_place for host in candidates):
        raise RunLocally("there is no host but localhost")
    directory = locks_or_fault(source, environment)
    set_limits(candidates, directory)
    pool = Pool(directory, candidates, "queue", SLOT_POLL_S, read_speeds(directory),
                seconds_setting(environment, "DISTCC_BACKOFF_PERIOD", BACKOFF_PERIOD_S),
                "%s by %s" % (argv[0], "text" if by_text else "files"))
    search = VolunteerSearch(source, pool)
    try:
        if by_text:
            return distribute_by_text(command, hosts, search, environment)
        return distribute_by_files(command, hosts, search, environment)
    finally:
        search.release()


def scan_for_text(argv, environment):
    """Return the Job that argv asks for by text; raises RunLocally when it stays here."""
    job = scan(argv, environment.get("PATH", DEFAULT_PATH))
    check_surroundings(job, environment)
    return job


def distribute_by_files(command, hosts, search, environment):
    """Do what distribute() says; a host that can do no jobs by files gets this one by text."""
    job, has_asked = None, False
    while True:
        search.take(job.size if job else 0)
        if not search.takes_files():
            text_job = scan_for_text(command.argv, environment)
            return distribute_by_text(text_job, hosts, search, environment)
        try:
            job = job or prepare_and_connect(command, search, environment)
        except NotByFiles as reason:
            search.hang_up()
            debug("%s goes by text: %s" % (search.source, reason))
            search.way = "text"
            continue
        except OSError as error:        # the compiler shall say so itself
            raise RunLocally("%s: %s" % (fsdecode(error.filename or b""), error.strerror))
        try:
            return do_by_files(job, search, environment)
        except LinkBroken as reason:
            debug("%s: %s: %s; once more" % (search.source, search.host, reason))
        except TextOnly as reason:
            # Over ssh such a host is of use only if it happens to have the compiler.
            (warn if search.host.by_ssh else debug)("%s: %s does no jobs by files: %s" % (
                search.source, search.host, reason))
            search.note_way(("text " + reason.places).strip())
        except Incomplete:
            if has_asked or not job.ask_for_missing():
                raise RunLocally("it failed there for want of a file")
            job, has_asked = None, True
        except HostFailed as fault:
            if not fault.refused:
                raise
            if fault.code == EXIT_BAD_ARGUMENTS:        # any volunteer would say the same
                raise RunLocally(str(fault))
            search.pass_over(fault)
        search.hang_up()


IDLE_CONNECTION_S = 5.0         # a volunteer ends one that is silent for long


def prepare_and_connect(command, search, environment):
    """Return what prepare_files() does, and raise the same. The volunteer has 2 ms of work to do
    for a new connection, so it gets that at the beginning."""
    import time
    search.start_connection()
    started = time.monotonic()
    job = prepare_files(command, environment)
    if time.monotonic() - started > IDLE_CONNECTION_S:
        search.hang_up()
    return job


def do_by_files(job, search, environment):
    """Have the host of the slot do a FilesJob; return the exit status. Raises as
    compile_by_files does, and HostFailed that names the host."""
    host = search.host
    try:
        patience_s = seconds_setting(environment, "DISTCC_IO_TIMEOUT", 0) or FILES_SILENCE_S
        connection = search.connect(min(patience_s, FILES_SILENCE_S))
        notice("compile %s on %s" % (job.source, search.host))
        host = search.host
        status, note, seconds = compile_by_files(job, connection, environment,
                                                 search.release_slot)
    except (WireError, HostFailed) as fault:
        refused = getattr(fault, "refused", False)
        if isinstance(fault, HostFailed) and not fault.reached:
            raise
        if not refused and search.may_remake_link(fault):
            raise LinkBroken(str(fault))
        if fault.code == EXIT_TRUNCATED and not job.is_answered and search.way is None:
            raise TextOnly("it hung up")
        if not refused:
            search.pool.back_off(host)
        raise HostFailed(fault.code, "%s: %s: %s" % (job.source, host, fault), refused=refused)
    search.note_way("files " + note.get("places", ""))
    if len(search.pool.hosts) > 1:
        write_speed(search.pool.directory, host.key, job.size, max(seconds, 1e-6))
    return status


def distribute_by_text(job, hosts, search, environment):
    """Do what distribute() says for a Job: preprocess here, compile there."""
    path = find_program(job.compiler, environment.get("PATH", DEFAULT_PATH))
    if path is None:
        raise RunLocally("%s: not found in PATH" % job.compiler)
    if not search.host:
        search.take_now()
    slot = own_slot(own_pool(search.pool.directory, hosts, "preprocess"), environment)
    try:
        text = preprocess(job, path, environment)
    finally:
        if slot is not None:
            posix.close(slot)
    search.size = text.size
    timeout_s = seconds_setting(environment, "DISTCC_IO_TIMEOUT", IO_TIMEOUT_S) or IO_TIMEOUT_S
    while True:
        connection = search.connect(timeout_s)
        try:
            return compile_by_text(job, text, connection, search, environment)
        except HostFailed as fault:     # what it thinks of this command is no fault of its own
            if not fault.refused or fault.code == EXIT_BAD_ARGUMENTS:
                raise
            search.pass_over(fault)


def check_surroundings(job, environment):
    """Raise RunLocally where the environment or the output asks for more than a compile."""
    for variable in TELLING_VARIABLES:
        if variable in environment:
            raise RunLocally("%s is set" % variable)
    check_files(job)


def known_hosts(source, environment):
    """Return the hosts of the list, after a word on what is wrong with it.

    Raises HostFailed (bad host specification) when there are none."""
    text, origin = read_host_list(environment)
    hosts, complaints = parse_hosts(text or "")
    for complaint in complaints:
        warn(complaint)
    if not hosts:
        raise HostFailed(EXIT_BAD_HOSTSPEC, "%s: %s" % (
            source, "no hosts in " + origin if origin else "no list of hosts is set"))
    return hosts


def locks_or_fault(source, environment):
    """Return the lock directory; raises HostFailed if it is not fit for use."""
    try:
        work_directory(environment)
        return lock_directory(environment)
    except OSError as error:
        raise HostFailed(EXIT_IO_ERROR, "%s: the directory of locks cannot be used: %s: %s" % (
            source, error.filename or "TMPDIR or DISTCC_DIR", error.strerror), reached=False)


def seconds_setting(environment, variable, default):
    """Return a time from the environment, in seconds; the default for what is no such time."""
    text = environment.get(variable)
    if not text:
        return default
    try:
        seconds = float(text)
        if 0 <= seconds <= MOST_SECONDS:
            return seconds
    except ValueError:
        pass
    warn("%s=%s is no number of seconds; %g is used" % (variable, text, default))
    return default


class VolunteerSearch:
    """The way to a volunteer: a slot, and a connection to its host; both None at first.

    source: what messages call the job; size: bytes of work once they are known, else 0; way:
    "files" or "text", as far as the host is known, else None; broken: the host over ssh whose link
    broke in this job. A host that cannot be connected to is backed off, and the search goes on."""

    def __init__(self, source, pool):
        """pool: of the hosts in the list; it loses those that fail."""
        self.source, self.pool, self.size = source, pool, 0
        self.host = self.slot = self.connection = self.way = self.broken = None

    def take(self, size=0):
        """Hold a slot, after a wait for one if need be; size: bytes of work, if known. Raises
        HostFailed when there is no host that could be asked."""
        if not self.host:
            self.take_now()
        if not self.host:
            self.settle(self.pool.wait(size))
        if not self.host:
            raise HostFailed(EXIT_CONNECT_FAILED, "%s: no volunteer can be asked at present"
                             % self.source, reached=False, is_known=self.pool.is_refused())

    def takes_files(self):
        """Tell whether the host is not known to do no jobs by files."""
        if self.way is None:
            self.way = read_about(self.pool.directory, self.host)[0]
        return self.way != "text"

    def is_ours(self):
        """Tell whether the host is known to be a daemon of ours."""
        return read_about(self.pool.directory, self.host)[1] != ""

    def note_way(self, about):
        """Remember what the host says of itself: "text", or "files" and its number of places."""
        if self.way != about.partition(" ")[0] or read_about(
                self.pool.directory, self.host)[1] != about.partition(" ")[2]:
            write_about(self.pool.directory, self.host, about)
        self.way = about.partition(" ")[0]

    def pass_over(self, fault):
        """Leave a host alone that refuses such jobs, and say so; raises the fault when it was
        the last host."""
        self.pool.note_refusal(self.host)
        self.leave(fault, str(fault))

    def take_now(self):
        """Take a slot if one is free."""
        self.settle(self.pool.take_now())

    def settle(self, place):
        """Keep a place that the pool gave; this machine's own means that the job runs here."""
        if place:
            self.host, self.slot = place
            self.way = None
            if self.host.in_place:
                posix.set_inheritable(self.slot, True)
                raise RunLocally("it is the turn of localhost", has_slot=True)

    def start_connection(self):
        """Begin to connect to the host of the slot, if there is one."""
        if self.host:
            self.connection = Tunnel(self.host, self.host is self.broken) if self.host.by_ssh \
                else Connection(self.host)
            self.connection.start()

    def connect(self, timeout_s):
        """Return a Connection, after a wait for a slot if need be. Raises HostFailed when no
        host can be reached. timeout_s: of each later step on it."""
        while True:
            self.take(self.size)
            if not self.connection:
                self.start_connection()
            try:
                self.connection.finish(timeout_s)
                return self.connection
            except HostFailed as fault:
                self.give_up(fault)

    def may_remake_link(self, fault):
        """Tell whether the job is worth another try over a new link, as it is once where ssh or
        the daemon behind it has ended. One that has gone silent is to be made anew later."""
        if not self.host or not self.host.by_ssh:
            return False
        if fault.code == EXIT_IO_ERROR:
            forget_tunnel(self.host)
        may = fault.code == EXIT_TRUNCATED and self.broken is not self.host
        self.broken = self.host
        return may

    def give_up(self, fault):
        """Back the host off; raises HostFailed with its fault when it was the last one."""
        self.pool.back_off(self.host)
        self.leave(fault, "%s: %s: %s" % (self.source, self.host, fault))

    def leave(self, fault, text):
        """Go on without the host; raises HostFailed with this text when it was the last one."""
        self.pool.hosts = [host for host in self.pool.hosts
                           if host is not self.host and not self.pool.is_backed_off(host)]
        self.release()
        if all(host.in_place for host in self.pool.hosts):
            raise HostFailed(fault.code, text, reached=False, is_known=fault.is_known)
        (debug if fault.is_known else warn)(text + "; trying another host")

    def hang_up(self):
        """Let go of the connection, but not of the slot."""
        if self.connection:
            self.connection.close()
        self.connection = None

    def release(self):
        """Let go of the slot and the connection."""
        self.hang_up()
        self.release_slot()
        self.host = None

    def release_slot(self):
        """Let the next job have the slot."""
        if self.slot is not None and not self.host.in_place:
            posix.close(self.slot)
        self.slot = None


def own_slot(pool, environment):
    """Return a descriptor that holds a slot of this machine, None after a bounded wait.

    A call from within a compiler that we run does not wait: it might wait for itself."""
    nested = environment[RECURSION_GUARD] != "1"
    place = pool.take_now()
    if not place and not nested:
        place = pool.wait(most_s=LOCAL_WAIT_S)
    return place[1] if place else None


def wait_for_own_slot(environment):
    """Take a slot of this machine that lasts as long as the command which we become. Raises
    OSError where the lock directory is unfit."""
    directory = lock_directory(environment)
    hosts = parse_hosts(read_host_list(environment)[0] or "")[0]
    slot = own_slot(own_pool(directory, hosts, "localhost"), environment)
    if slot is not None:
        posix.set_inheritable(slot, True)


def compile_by_text(job, text, connection, search, environment):
    """Have the volunteer compile a Text; leave what the compiler would have left; return its
    status. Raises RunLocally and HostFailed as distribute does."""
    import time
    host, target = search.host, None
    programs = list_programs(job, environment) if search.is_ours() else b""
    debug("there: " + " ".join(text.argv))
    notice("compile %s on %s" % (job.source, host))
    try:
        started = time.monotonic()
        send_request(connection, text, programs)
        target = Target(job.output, not job.assembly, environment)
        reply = recv_reply(connection,
                           CHECKED_TEXT_VERSION if programs else PROTOCOL_VERSION)
        seconds = time.monotonic() - started
        search.release_slot()
        status = finish_job(job, text, connection, reply, target, environment)
    except (WireError, HostFailed) as fault:
        refused = isinstance(fault, HostFailed) and fault.refused
        if programs and not refused:    # it may have become another daemon
            search.note_way("text")
        if isinstance(fault, HostFailed) and not refused:
            search.pool.back_off(host)
        raise HostFailed(fault.code, "%s: %s: %s" % (job.source, host, fault), refused=refused)
    finally:
        if target:
            target.discard()
    if len(search.pool.hosts) > 1:
        write_speed(search.pool.directory, host.key, text.size, max(seconds, 1e-6))
    return status


def finish_job(job, text, connection, reply, target, environment):
    """Put object, dependencies and messages in their places; return the exit status. target: of
    the object; if anything goes wrong, there is no new one."""
    if in_doubt(job, reply) or quotes_are_mixed(text, reply, environment):
        raise RunLocally("what came from there need not be what comes from here")
    try:
        if reply.status == 0:
            target.receive(connection, reply.size)
        connection.check_end()
        if text.rule_place:             # gcc writes it when it fails, too, and leaves an older
            write_in_place(*text.rule_place, [text.rule])               # object
        if reply.status == 0:
            target.commit()
    except OSError as error:
        raise RunLocally("%s: cannot be written: %s" % (error.filename or job.output,
                                                        error.strerror))
    write_fully(1, reply.stdout)
    write_fully(2, merge_messages(text.messages, reply.stderr, environment))
    return reply.status >> 8


# -------------------------------------------------------------------------------------------
# Entry: how we were called
# main run with_compiler guard_recursion trim_path explain explain_text
# -------------------------------------------------------------------------------------------

USAGE = """\
Usage:
  distcc.py [COMPILER] [COMPILER OPTION]...   compile, on another machine where possible
  distcc.py --scan COMPILER [OPTION]...       say what would become of a command, and why
  distcc.py --show-hosts                      list the hosts, their ports and limits
  distcc.py -j                                print how many jobs the hosts take together
  distcc.py --help | --version

The compiler may be left out (then it is cc), and distcc.py may be called by a symbolic link
that has the compiler's name and stands first in PATH. Options of distcc.py come before the
compiler; all that follows is the compiler's.

DISTCC_HOSTS lists the machines that compile, each of which runs distccd.py, or sshd:
  HOST[:PORT][/LIMIT]        a name or an IPv4 address; port %d and limit %d unless given
  [IPV6-ADDRESS]:PORT/LIMIT
  [USER]@HOST[:PORT][/LIMIT] over ssh: nothing need be installed there but Python
  localhost[/LIMIT]          compiles here, without a daemon
Other variables: DISTCC_WAY DISTCC_VERBOSE DISTCC_LOG DISTCC_SAVE_TEMPS DISTCC_TCP_CORK DISTCC_DIR
DISTCC_SSH DISTCC_FALLBACK DISTCC_IO_TIMEOUT DISTCC_BACKOFF_PERIOD; see README.
""" % (DEFAULT_PORT, DEFAULT_LIMIT)
VERSION_TEXT = "distcc.py %s\nprotocol 1, default port %d\n" % (VERSION, DEFAULT_PORT)
LINKED_SUFFIXES = (".o", ".obj", ".a", ".so", ".lo", ".la", ".dylib", ".lib")


def main():
    """Run as the program; does not return."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    try:
        open_standard_streams()
        status = run(sys.argv)
    except Fatal as fault:
        say("error: %s" % fault)
        status = fault.code
    except Interrupted as interruption:
        _signal.signal(interruption.signal_number, _signal.SIG_DFL)
        posix.kill(posix.getpid(), interruption.signal_number)
        status = 128 + interruption.signal_number
    except Exception as bug:            # build() runs the compiler in spite of most
        say("error: internal error, please report it: " + describe_bug(bug))
        status = EXIT_DISTCC_FAILED
    posix._exit(status)                    # nothing is left to tear down, which would cost 1 ms


def open_standard_streams():
    """Open what is closed of stdin, stdout and stderr, or a working file would take its place.

    Raises OSError."""
    for descriptor in (0, 1, 2):
        try:
            posix.fstat(descriptor)
        except OSError:
            posix.open("/dev/null", posix.O_RDWR)


def is_ignored(signal_number):
    """Tell whether our caller has us ignore a signal. PyPy does not know, but the kernel does,
    save for SIGINT, which PyPy takes over as it starts."""
    if sys.implementation.name == "pypy":
        try:
            with open("/proc/self/status", encoding="ascii") as stream:
                mask = next(line for line in stream if line.startswith("SigIgn:")).split()[1]
            return bool(int(mask, 16) >> signal_number - 1 & 1)
        except (OSError, StopIteration, ValueError):
            return False
    return _signal.getsignal(signal_number) is _signal.SIG_IGN


def on_ending_signal(signal_number, frame):
    """Signal handler: unwind, so that everything is tidied up on the way, which no second
    signal may cut short (timeout and make both send SIGTERM, a closed terminal SIGHUP)."""
    for number in ENDING_SIGNALS:
        _signal.signal(number, on_further_signal)
    raise Interrupted(signal_number)


def on_further_signal(signal_number, frame):
    """Signal handler: nothing more to do. SIG_IGN would have CPython complain of a race."""


def run(argv):
    """Understand how we were called and do it; return the exit status.

    argv: sys.argv. Raises Fatal and Interrupted."""
    name = argv[0].rpartition("/")[2]
    masquerading = "distcc" not in name
    words = [name] + argv[1:] if masquerading else argv[1:]
    environment = start_environment()
    if not masquerading:
        if not words:
            write_fully(2, USAGE.encode())
            return EXIT_BAD_ARGUMENTS
        if words[0] in OWN_OPTIONS:
            return OWN_OPTIONS[words[0]](words[1:], environment)
    for number in ENDING_SIGNALS:
        if not is_ignored(number):      # as under nohup
            _signal.signal(number, on_ending_signal)
    command = with_compiler(words)
    guard_recursion(environment)
    environment["PATH"] = trim_path(environment.get("PATH", DEFAULT_PATH), command[0])
    return build(command, environment)


def with_compiler(words):
    """Return the command in words, with cc before it where it begins without a compiler."""
    first = words[0]
    implicit = (first[:1] in ("-", "@") or first.endswith(LINKED_SUFFIXES)
                or language_of(first, "cc") is not None)
    return ["cc"] + words if implicit else words


def guard_recursion(environment):
    """Count this call in the environment; raises Fatal when calls nest without an end."""
    depth = environment.get(RECURSION_GUARD, "0")
    depth = int(depth) if depth.isascii() and depth.isdigit() and len(depth) < 4 else 0
    if depth >= RECURSION_LIMIT:
        raise Fatal(EXIT_RECURSION, "distcc calls itself without an end: the compiler in PATH "
                    "leads back to it")
    environment[RECURSION_GUARD] = str(depth + 1)


def trim_path(search_path, name):
    """Return PATH without the directories up to the last one in which `name` is ourselves, so
    that neither we nor the compiler find us again, and ccache further along works."""
    try:
        own = posix.stat(__file__)
    except OSError:                     # removed, or out of reach: nothing leads to it
        return search_path
    directories = search_path.split(":")
    for index in range(len(directories) - 1, -1, -1):
        try:
            status = posix.stat("%s/%s" % (directories[index] or ".", name))
        except OSError:
            continue
        if same_file(status, own):
            return ":".join(directories[index + 1:])
    return search_path


def explain(words, environment):
    """Print what would become of a command line, and why; return the exit status."""
    if not words:
        return usage_error("--scan needs a command line")
    argv = with_compiler(words)
    environment["PATH"] = trim_path(environment.get("PATH", DEFAULT_PATH), argv[0])
    try:
        if environment.get("DISTCC_WAY") == "text":
            return print_lines(*explain_text(argv, environment, "DISTCC_WAY asks for it"))
        try:
            command = read_command(argv)
            prepare_files(command, environment)
        except NotByFiles as reason:
            return print_lines(*explain_text(argv, environment, reason))
        return print_lines("goes by files: %s compiled to %s" % (
            " ".join(name for name, _ in command.sources),
            " ".join(command.outputs()[:len(command.sources)])))
    except (RunLocally, OSError) as reason:
        return print_lines("runs here: %s" % reason)


def explain_text(argv, environment, reason):
    """Return the lines on a command that goes by text, for a reason. Raises RunLocally, OSError.
    """
    job = scan_for_text(argv, environment)
    path = find_program(job.compiler, environment["PATH"])
    if path is None:
        raise RunLocally("%s: not found in PATH" % job.compiler)
    check_compiler(path)
    lines = ["goes by text (%s): %s compiled to %s" % (reason, job.source, job.output)]
    if job.language in PREPROCESSED_LANGUAGES:
        posix.close(open_preprocessed(job, environment))
    else:
        lines.append("preprocessed here:  " + " ".join(preprocessor_command(job, [], "N")))
    return lines + ["compiled there:     " + " ".join(remote_command(job, [], environment))]


def print_lines(*lines):
    """Print lines on stdout; return the exit status."""
    write_fully(1, b"".join(fsencode(printable(line)) + b"\n" for line in lines))
    return 0


def usage_error(text):
    """Say what is wrong with our own options; return the exit status."""
    say("error: %s; try distcc.py --help" % text)
    return EXIT_BAD_ARGUMENTS


def print_text(text):
    """Return a handler of an option that prints text."""
    def handler(words, environment):
        """Print it; return the exit status."""
        write_fully(1, text.encode())
        return 0
    return handler


def show_hosts(words, environment):
    """Print a line for each host: name, port and limit; return the exit status."""
    hosts, complaints = parse_hosts(read_host_list(environment)[0] or "")
    for complaint in complaints:
        warn(complaint)
    return print_lines(*("localhost/%d" % host.limit if host.in_place
                         else "%s/%d" % (host.address(), host.limit) for host in hosts))


def show_concurrency(words, environment):
    """Print the sum of the hosts' limits, for make -j$(distcc.py -j)."""
    hosts = parse_hosts(read_host_list(environment)[0] or "")[0]
    return print_lines(str(sum(host.limit for host in hosts) or processor_count()))


OWN_OPTIONS = {"--help": print_text(USAGE), "--version": print_text(VERSION_TEXT),
               "--scan": explain, "--show-hosts": show_hosts, "-j": show_concurrency}

if __name__ == "__main__":
    if sys.version_info < (3, 8):
        sys.exit("distcc.py needs Python 3.8 or newer")
    main()

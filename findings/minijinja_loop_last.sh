#!/usr/bin/env bash
# minijinja 3.1.0: in a loop over the characters of a text, loop.last is never true, in silence.
#
# Behaviour: a template that writes digits one by one, or from the last to the first, puts a sign between them with
# {% if not loop.last %}. Over a text, a part of one or a reversed one, loop.last is false to the end, so each text has one
# sign more; loop.length, loop.revindex and loop.revindex0 are undefined and come out empty. jinja2, for which chat
# templates are written, has them right. Over lists, ranges, dicts and parts of lists minijinja has them right, too.
# Expected (guess before the run): the text of jinja2, or an error.
# Way round: `| list` behind the text.
#
# Output seen with jinja2 3.1.6, Python 3.11; digits is "213", numbers is [2, 1, 3]:
#     digits             jinja2 2,1,3   minijinja 2,1,3,  loop.length 3 and ''
#     digits[::-1]       jinja2 3,1,2   minijinja 3,1,2,  loop.length 3 and ''
#     digits | reverse   jinja2 3,1,2   minijinja 3,1,2,  loop.length 3 and ''
#     digits[1:]         jinja2 1,3     minijinja 1,3,    loop.length 2 and ''
#     digits | list      jinja2 2,1,3   minijinja 2,1,3   loop.length 3 and '3'
#     numbers            jinja2 2,1,3   minijinja 2,1,3   loop.length 3 and '3'
#     numbers[::-1]      jinja2 3,1,2   minijinja 3,1,2   loop.length 3 and '3'
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet minijinja==3.1.0 jinja2==3.1.6
cd "$folder"
cat > run.py <<'PYTHON'
import jinja2
import minijinja

values = {"digits": "213", "numbers": [2, 1, 3]}


def both(template):
    python = jinja2.Environment().from_string(template).render(**values)
    return python, minijinja.Environment().render_str(template, **values)


loops = ("digits", "digits[::-1]", "digits | reverse", "digits[1:]", "digits | list", "numbers", "numbers[::-1]")
for loop in loops:
    first, second = both("{% for c in " + loop + " %}{{ c }}{% if not loop.last %},{% endif %}{% endfor %}")
    lengths = both("{% for c in " + loop + " %}{% if loop.first %}{{ loop.length }}{% endif %}{% endfor %}")
    print(f"{loop:<18} jinja2 {first:<7} minijinja {second:<7} loop.length {lengths[0]} and {lengths[1]!r}")
PYTHON
"$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
digits             jinja2 2,1,3   minijinja 2,1,3,  loop.length 3 and ''
digits[::-1]       jinja2 3,1,2   minijinja 3,1,2,  loop.length 3 and ''
digits | reverse   jinja2 3,1,2   minijinja 3,1,2,  loop.length 3 and ''
digits[1:]         jinja2 1,3     minijinja 1,3,    loop.length 2 and ''
digits | list      jinja2 2,1,3   minijinja 2,1,3   loop.length 3 and '3'
numbers            jinja2 2,1,3   minijinja 2,1,3   loop.length 3 and '3'
numbers[::-1]      jinja2 3,1,2   minijinja 3,1,2   loop.length 3 and '3'
TEXT
diff expected.txt seen.txt
cat seen.txt

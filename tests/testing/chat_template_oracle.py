"""Renders chat templates with Python's jinja2, configured as Hugging Face's transformers configures it.

    python3 tests/testing/chat_template_oracle.py OUT.json                  the table below
    python3 tests/testing/chat_template_oracle.py OUT.json --random 7 500   500 generated snippets from seed 7

tests/text/data/chat_template.json is the first one's output; text/chat_template_test.cc compares both with ours.
The templates are written for these tests in the manner of the families they are named after.
"""

import datetime
import json
import random
import re
import sys
import warnings

import jinja2
import jinja2.ext
import jinja2.sandbox

NOW = datetime.datetime(2025, 3, 7, 14, 5, 9, tzinfo=datetime.timezone.utc)


class GenerationTag(jinja2.ext.Extension):
    """{% generation %} marks the assistant's text for training; the body is rendered in a scope of its own."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("render_body"), [], [], body).set_lineno(line)

    def render_body(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def render(env, template, messages, generation=True):
    try:
        text = env.from_string(template).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=generation,
            bos_token="<s>", eos_token="</s>")
        text.encode("utf-8")
        return {"output": text}
    except jinja2.exceptions.TemplateError as error:
        raised = type(error) is jinja2.exceptions.TemplateError
        return {"error": str(error) if raised else ""}
    except Exception:  # what Python itself raises: TypeError, ValueError, ...
        return {"error": ""}


def message(role, content):
    return {"role": role, "content": content}


MESSAGES = {
    "user": [message("user", "Hi")],
    "system": [message("system", "Be brief."), message("user", "What is 2 + 2?")],
    "turns": [message("system", "  You are a poet.\n"), message("user", " first \n"), message("assistant", "  answer "),
              message("user", "second")],
    "unicode": [message("user", "Grüße, 世界! 🎈"), message("assistant", "Привет\u00a0"), message("user", "\u2003é\u3000")],
    "empty": [message("user", ""), message("assistant", ""), message("user", "")],
    "braces": [message("user", "{{ 7 * 7 }} {% if x %} {# no #} <|im_end|> [INST] \\n 'q' \"d\""),
               message("assistant", "{{ messages }}"), message("user", "}}{{")],
    "thinking": [message("user", "why?"), message("assistant", "<think>\nhm\n</think>\n\nbecause"), message("user", "ok")],
    "wrong_order": [message("user", "a"), message("user", "b")],
    "assistant_last": [message("user", "a"), message("assistant", "b")],
    "none": [],
}

# In the manner of model families; rendered over all of MESSAGES, with and without a generation prompt.
TEMPLATES = {
    "chatml": r'''{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\n' }}
{% endif %}''',
    "chatml_default_system": r'''{% for m in messages %}
{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
A default.<|im_end|>
' }}{% endif %}{{ '<|im_start|>' ~ m.role ~ "\n" ~ m.content ~ '<|im_end|>' }}
{% endfor %}{{- '<|im_start|>assistant\n' if add_generation_prompt }}''',
    "llama2": r'''{% if messages and messages[0]['role'] == 'system' %}
{% set head = messages[0]['content'] %}{% set turns = messages[1:] %}
{% else %}
{% set head = false %}{% set turns = messages %}
{% endif %}
{% for turn in turns %}
{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('turn ' ~ loop.index ~ ' is out of order') }}
{% endif %}
{% set text = turn['content'] %}
{% if head != false and loop.index0 == 0 %}
{% set text = '<<SYS>>\n' + head + '\n<</SYS>>\n\n' + text %}
{% endif %}
{% if turn['role'] == 'user' %}
{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}
{% elif turn['role'] == 'assistant' %}
{{ ' ' + text.strip() + ' ' + eos_token }}
{% endif %}
{% endfor %}''',
    "llama3": r'''{% for turn in messages %}{% set block = '<|head|>' + turn['role'] + '<|/head|>\n\n' + turn['content'] | trim + '<|eot|>' %}{% if loop.index0 == 0 %}{% set block = bos_token + block %}{% endif %}{{ block }}{% endfor %}{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}''',
    "llama32": r'''{{- bos_token }}
{%- if other_tools is defined %}
    {%- set tools = other_tools %}
{%- endif %}
{%- if not day is defined %}
    {%- if strftime_now is defined %}
        {%- set day = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set day = "1 Jan 2024" %}
    {%- endif %}
{%- endif %}

{#- The system text comes out of the list of messages. -#}
{%- set head = "" %}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set head = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- "<|head|>system<|/head|>\n\nToday: " + day + "\n\n" }}
{%- if tools is not none and not tools_with_user %}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
    {%- endfor %}
{%- endif %}
{{- head }}
{{- "<|eot|>" }}
{%- for turn in messages %}
    {%- if 'calls' in turn %}
        {%- if not turn.calls|length == 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {%- for name, value in turn.calls[0].arguments | items %}
            {{- name + '="' + value + '"' }}{%- if not loop.last %}{{- ", " }}{%- endif %}
        {%- endfor %}
    {%- elif not (turn.role == 'tool' or turn.role == 'ipython') %}
        {{- '<|head|>' + turn['role'] + '<|/head|>\n\n' + turn['content'] | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\n\n' }}
{%- endif %}''',
    "qwen25": r'''{%- if tools %}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>system\nA default.<|im_end|>\n' }}
{%- endif %}
{%- for turn in messages %}
    {%- if (turn.role == "user") or (turn.role == "system" and not loop.first) or (turn.role == "assistant" and not turn.calls) %}
        {{- '<|im_start|>' + turn.role + '\n' + turn.content + '<|im_end|>' + '\n' }}
    {%- elif turn.role == "tool" and ((loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool")) %}
        {{- '<|im_start|>user' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}''',
    "qwen3": r'''{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for turn in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and turn.role == "user" and turn.content is string and not(turn.content.startswith('<result>') and turn.content.endswith('</result>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for turn in messages %}
    {%- set text = turn.content if turn.content is string else '' %}
    {%- set thoughts = '' %}
    {%- if turn.thoughts is string %}
        {%- set thoughts = turn.thoughts %}
    {%- elif turn.role == 'assistant' and '</think>' in text %}
        {%- set thoughts = text.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {%- set text = text.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '<|im_start|>' + turn.role + '\n' }}
    {%- if turn.role == 'assistant' and loop.index0 > ns.last_query and (loop.last or thoughts) %}
        {{- '<think>\n' + thoughts.strip('\n') + '\n</think>\n\n' + text.lstrip('\n') }}
    {%- else %}
        {{- text }}
    {%- endif %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if think is defined and think is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}''',
    "mistral": r'''{{ bos_token }}{% for turn in messages %}{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant take turns') }}{% endif %}{% if turn['role'] == 'user' %}{{ '[INST] ' + turn['content'] + ' [/INST]' }}{% elif turn['role'] == 'assistant' %}{{ turn['content'] + eos_token}}{% else %}{{ raise_exception('no role ' + turn['role'] + '!') }}{% endif %}{% endfor %}''',
    "mistral_v3": r'''{%- if messages and messages[0]["role"] == "system" %}
    {%- set head = messages[0]["content"] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{%- set questions = turns | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.place = 0 %}
{%- for turn in turns %}
    {%- if not (turn.role == "tool" or (turn.calls is defined and turn.calls is not none)) %}
        {%- if (turn["role"] == "user") != (ns.place % 2 == 0) %}
            {{- raise_exception("out of order at " ~ ns.place) }}
        {%- endif %}
        {%- set ns.place = ns.place + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for turn in turns %}
    {%- if turn["role"] == "user" %}
        {%- if tools is not none or (turn == questions[-1]) %}
            {%- for tool in tools or [{"name": "f", "return": 1, "n": [1]}] %}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
                {%- endfor %}
            {%- endfor %}
        {%- endif %}
        {{- "[INST] " + (head + "\n\n" if loop.last and head is defined else "") + turn["content"] + "[/INST]" }}
    {%- else %}
        {{- " " + turn["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}''',
    "gemma": r'''{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system text, please') }}{% endif %}{% for turn in messages %}{% if (turn['role'] == 'assistant') %}{% set who = 'model' %}{% else %}{% set who = turn['role'] %}{% endif %}{{ '<turn>' + who + '
' + turn['content'] | trim + '</turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<turn>model
'}}{% endif %}''',
    "gemma3": r'''{{ bos_token }}
{%- set turns = messages -%}
{%- set head = "" -%}
{%- if messages and messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set head = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set head = messages[0]['content'][0]['text'] -%}
    {%- endif -%}
    {%- set turns = messages[1:] -%}
{%- endif -%}
{%- for turn in turns -%}
    {%- set who = "model" if turn['role'] == 'assistant' else turn['role'] -%}
    {{ '<turn>' + who + '
' + (head if loop.first else "") }}
    {%- if turn['content'] is string -%}
        {{ turn['content'] | trim }}
    {%- elif turn['content'] is iterable -%}
        {%- for part in turn['content'] -%}
            {%- if part['type'] == 'text' -%}
                {{ part['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("neither text nor parts") }}
    {%- endif -%}
    {{ '</turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<turn>model
'}}
{%- endif -%}''',
    "phi3": r'''{% for turn in messages %}{% if turn['role'] == 'system' and turn['content'] %}{{'<|system|>
' + turn['content'] + '<|end|>
'}}{% elif turn['role'] in ['user', 'assistant'] %}{{'<|' + turn['role'] + '|>
' + turn['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}''',
    "phi4": r'''{% for turn in messages %}{{ '<|im_start|>' ~ turn['role'] ~ '<|im_sep|>' }}{% if (turn['role'] == 'assistant') %}{% generation %}{{ turn['content'] + '<|im_end|>'}}{% endgeneration %}{% else %}{{ turn['content'] + '<|im_end|>'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}''',
    "smollm3": r'''{# ---- settings ---- #}
{%- if thinking is not defined -%}
{%- set thinking = true -%}
{%- endif -%}
{%- set mode = "/think" if thinking else "/no_think" -%}
{%- set orders = "" -%}
{%- if messages and messages[0].role == "system" -%}
  {%- if "/no_think" in messages[0].content -%}
    {%- set mode = "/no_think" -%}
  {%- endif -%}
  {%- set orders = messages[0].content.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
{%- set today = strftime_now("%d %B %Y") -%}
{{- "<|im_start|>system\nDate: " ~ today ~ "\nMode: " + mode + "\n\n" -}}
{%- if orders -%}
  {{- orders + "\n\n" -}}
{%- endif -%}
{{- "<|im_end|>\n" -}}
{%- for turn in messages -%}
    {%- set text = turn.content if turn.content is string else "" -%}
    {%- if turn.role == "user" -%}
        {{ "<|im_start|>" + turn.role + "\n"  + text + "<|im_end|>\n" }}
    {%- elif turn.role == "assistant" -%}
        {% generation %}
        {%- if mode == "/think" -%}
            {{ "<|im_start|>assistant\n" + text.lstrip("\n") + "<|im_end|>\n" }}
        {%- else -%}
            {{ "<|im_start|>assistant\n<think>\n\n</think>\n" + text.lstrip("\n") + "<|im_end|>\n" }}
        {%- endif -%}
        {% endgeneration %}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ "<|im_start|>assistant\n" + ("" if mode == "/think" else "<think>\n\n</think>\n") }}
{%- endif -%}''',
    "deepseek": r'''{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(first=true, tool=false, head='') %}{%- for turn in messages %}{%- if turn['role'] == 'system' %}{%- if ns.first %}{% set ns.head = ns.head + turn['content'] %}{% set ns.first = false %}{%- else %}{% set ns.head = ns.head + '\n\n' + turn['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.head }}{%- for turn in messages %}{%- if turn['role'] == 'user' %}{%- set ns.tool = false -%}{{'<|User|>' + turn['content']}}{%- endif %}{%- if turn['role'] == 'assistant' and 'calls' not in turn %}{%- if ns.tool %}{{'<|/tool|>' + turn['content'] + eos_token}}{%- set ns.tool = false -%}{%- else %}{% set text = turn['content'] %}{% if '</think>' in text %}{% set text = text.split('</think>')[-1] %}{% endif %}{{'<|Assistant|>' + text + eos_token}}{%- endif %}{%- endif %}{%- endfor -%}{% if add_generation_prompt and not ns.tool %}{{'<|Assistant|><think>\n'}}{% endif %}''',
    "zephyr": r'''{% for turn in messages %}
{% if turn['role'] == 'user' %}
{{ '<|user|>
' + turn['content'] + eos_token }}
{% elif turn['role'] == 'system' %}
{{ '<|system|>
' + turn['content'] + eos_token }}
{% else %}
{{ '<|assistant|>
'  + turn['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}''',
    "command_r": r'''{{ bos_token }}{% if messages and messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set head = messages[0]['content'] %}{% elif false == true %}{% set turns = messages %}{% set head = 'A default.' %}{% else %}{% set turns = messages %}{% set head = false %}{% endif %}{% if head != false %}{{ '<|SYSTEM|>' + head + '<|END|>' }}{% endif %}{% for turn in turns %}{% set text = turn['content'] %}{% if turn['role'] == 'user' %}{{ '<|USER|>' + text.strip() + '<|END|>' }}{% elif turn['role'] == 'assistant' %}{{ '<|BOT|>'  + text.strip() + '<|END|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|BOT|>' }}{% endif %}''',
    "yi": r'''{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% if messages and messages[0]['role'] == 'system' %}{% set head = messages[0]['content'] %}{% endif %}{% if head is defined %}{{ head }}{% endif %}{% for turn in messages %}{% set text = turn['content'] %}{% if turn['role'] == 'user' %}{{ '<|im_start|>user\n' + text + '<|im_end|>\n<|im_start|>assistant\n' }}{% elif turn['role'] == 'assistant' %}{{ text + '<|im_end|>' + '\n' }}{% endif %}{% endfor %}''',
    "internlm2": r'''{{ bos_token }}{% for turn in messages %}{{'<|im_start|>' + turn['role'] + '\n' + turn['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}''',
    "olmo": r'''{{ eos_token }}{% for turn in messages %}
{% if turn['role'] == 'user' %}
{{ '<|user|>
' + turn['content'] }}
{% elif turn['role'] == 'assistant' %}
{{ '<|assistant|>
'  + turn['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}''',
    "macros": r'''{%- macro type_name(spec) %}
{%- set names = {"string": "str", "number": "float", "integer": "int"} %}
{%- if names[spec.type] is defined %}
    {{- names[spec.type] }}
{%- elif spec.type == "array" %}
    {{- "list[" + type_name(spec["items"]) + "]" }}
{%- elif spec.type == "object" %}
    {{- "dict[str, " + type_name(spec.of) + "]" if spec.of is defined else "dict" }}
{%- elif spec.type is iterable %}
    {%- for t in spec.type %}
        {{- type_name({"type": t}) }}{%- if not loop.last %}{{- " or " }}{%- endif %}
    {%- endfor %}
{%- else %}
    {{- "Any" }}
{%- endif %}
{%- endmacro %}
{%- macro turn(role, text='', end="<|im_end|>\n") -%}
<|im_start|>{{ role }}
{{ text }}{{ end }}
{%- endmacro %}
{{- type_name({"type": "array", "items": {"type": "object", "of": {"type": ["string", "integer"]}}}) }}
{% for m in messages %}
{{- turn(m.role, text=m.content) }}
{% endfor %}
{%- if add_generation_prompt %}{{ turn('assistant', end='') }}{% endif %}''',
    "gathering": r'''{%- set ns = namespace(system='', count=0, roles=[]) -%}
{%- for m in messages if m.role == 'system' -%}
{%- set ns.system = ns.system ~ m.content | trim -%}
{%- set ns.count = ns.count + loop.length -%}
{%- endfor -%}
{%- for m in messages -%}
{%- set ns.roles = ns.roles + [m.role | upper] -%}
{%- endfor -%}
{{ ns.system | default('none', true) }}|{{ ns.count }}|{{ ns.roles | join('>') }}|{{ messages | map(attribute='content') | map('trim') | join('/') }}
{%- for m in messages | rejectattr('role', 'equalto', 'system') %}
{{ loop.index }}:{{ loop.previtem.role if loop.previtem is defined else '^' }}<{{ m.role }}>{{ loop.nextitem is defined }} {{ loop.revindex0 }} {{ loop.cycle('a', 'b') }}
{%- else %}
no turns
{%- endfor %}''',
    "break_at_assistant": r'''{% for m in messages %}
{% if m.role == 'system' %}{% continue %}{% endif %}
{% if m.role == 'assistant' %}{% break %}{% endif %}
{{ m.role }}={{ m.content | tojson }};
{%- endfor %}.''',
    "set_blocks": r'''{% for m in messages %}
{% set body %}
[{{ m.role }}] {{ m.content }}
{% endset %}
{% filter trim %}  {{ body }}  {% endfilter %}{{ '\n' }}
{% with low = m.role | lower, size = m.content | length %}{{ low }} has {{ size }} characters{% endwith %};
{% endfor %}''',
    "repr_everything": r'''{{ messages }} {{ messages | tojson(indent=2) }} {{ messages[0] }} {{ messages[-1:] }} {{ (messages | length, 'x') }}''',
}

# One construct each; rendered over MESSAGES["turns"].
SNIPPETS = [
    r"""{{ 1 + 2 * 3 ** 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 2 ** -1 }} {{ -2 ** 2 }} {{ +3 }}""",
    r"""{{ 1.5 + 1 }} {{ 1e3 }} {{ 1e16 }} {{ 1e-5 }} {{ 0.1 + 0.2 }} {{ 3.0 }} {{ 1_000 }} {{ 7.0 // 2 }} {{ -7.5 % 2 }} {{ 123456789.125 }}""",
    r"""{{ true }} {{ none }} {{ True and 0 }} {{ '' or 'x' }} {{ not 1 }} {{ true + 1 }} {{ undefined_name }}|""",
    r"""{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 'a' == 1 }} {{ true == 1 }} {{ none == false }}""",
    r"""{{ 'a' in 'cat' }} {{ 1 in [1, 2] }} {{ 'k' in {'k': 1} }} {{ 3 not in (1, 2) }} {{ 'x' in undefined_name }}""",
    r"""{{ 'a' ~ 1 ~ none ~ undefined_name ~ 1.0 ~ true ~ [1] }}""",
    r"""{{ 'abc'[1] }} {{ 'abc'[-1] }} {{ 'abc'[9] }}| {{ 'héllo🎈'[1:5] }} {{ 'abcdef'[::2] }} {{ 'abc'[::-1] }} {{ [1,2,3][-2:] }} {{ (1,2,3)[1:] }} {{ [1,2,3][5:1] }}""",
    r"""{{ 'a' if true }} {{ 'a' if false }}| {{ 'a' if false else 'b' if false else 'c' }}""",
    r"""{{ {'a': 1, 'b': [1, {'c': none}]} }} {{ {'a': 1}['a'] }} {{ {'a': 1}.a }} {{ {'a': 1}.b }}| {{ {'x': 1, 'x': 2} }} {{ {1: 'i', true: 'b'} }}""",
    r"""{{ [] }} {{ () }} {{ (1,) }} {{ 1, 2 }} {{ {} }} {{ ['a\'b', "q\"", 'n\n\t\\', 'é', '\x07', '\u200b'] }}""",
    r"""{{ "esc \x41 \u00e9 \101 \q \\ \' end" }} {{ 'a' 'b' "c" }} {{ '\U0001F388' }}""",
    r"""{% for i in range(3) %}{{ i }}{% if not loop.last %},{% endif %}{% endfor %} {{ range(2, 8, 3) | list }} {{ range(3)[1] }} {{ range(5, 0, -2) | list }}""",
    r"""{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {'z': 1} %}{{ k }}{% endfor %} {{ {'a': 1}.keys() }} {{ {'a': 1}.values() | list }} {{ {'a': 1}.items() }}""",
    r"""{% for a in [] %}x{% else %}empty{% endfor %} {% for a, b in [(1, 2), [3, 4], 'xy'] %}{{ a }}{{ b }} {% endfor %}""",
    r"""{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}""",
    r"""{% if true %}{% set y = 5 %}{% endif %}{{ y }} {% set a, b = 1, 'two' %}{{ b }}{{ a }} {% set t = 1, 2 %}{{ t }}""",
    r"""{% set ns = namespace(n=0, s='a') %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}{{ ns.s }}{{ ns.none }}| {{ ns['n'] }}""",
    r"""{% macro m(a, b=2, c='x') %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=3) }} {{ m(b=5, a=0) }} {{ m() }}""",
    r"""{% set g = 'outer' %}{% macro m() %}{{ g }}{{ loop }}{% endmacro %}{% for i in [1] %}{% set g = 'inner' %}{{ m() }}{% endfor %}""",
    r"""{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}""",
    r"""{{ 'x' is defined }} {{ nope is defined }} {{ nope is undefined }} {{ none is none }} {{ 1 is number }} {{ true is number }} {{ true is integer }} {{ 1.0 is float }} {{ 'a' is string }} {{ [] is sequence }} {{ {} is mapping }} {{ {} is sequence }} {{ 1 is iterable }} {{ 'a' is iterable }}""",
    r"""{{ 4 is even }} {{ 3 is odd }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 1 is eq 1 }} {{ 2 is gt(1) }} {{ 'a' is in ['a'] }} {{ false is false }} {{ 0 is false }} {{ none is not none }} {{ 'AB' is upper }} {{ 'aB' is lower }} {{ true is boolean }} {{ true is sameas true }} {{ 1 is sameas true }}""",
    r"""{{ raise_exception is callable }} {{ 'a' is callable }} {{ nope is sequence }} {{ nope is iterable }} {{ {'a': 1}.items() is sequence }} {{ range(3) is sequence }}""",
    r"""{{ 'Hello World'|upper }} {{ 'Hello'|lower }} {{ 'hELLO wORLD'|capitalize }} {{ 'hello wORLD-foo (bar)'|title }} {{ "they're".title() }} {{ 'straße'|length }} {{ 'éÀя'|upper }} {{ 'ÉÀЯ'|lower }}""",
    r"""{{ '  a b  '|trim }}| {{ 'xxaxx'|trim('x') }} {{ '  a'.lstrip() }} {{ 'a  '.rstrip() }}| {{ 'xyaxy'.strip('yx') }} {{ '\u3000 a\u00a0'.strip() }}| {{ 'éaé'.strip('é') }}""",
    r"""{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b c '.split(none, 1) }} {{ ' a b c '.rsplit(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a\nb\r\nc\n'.splitlines() }}""",
    r"""{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abcabc'.find('c') }} {{ 'abcabc'.rfind('c') }} {{ 'abc'.find('z') }} {{ 'héh'.find('h', ) }} {{ 'aaa'.count('a') }} {{ 'abc'.index('b') }} {{ 'éa'.find('a') }}""",
    r"""{{ 'a-b-c'.replace('-', '+') }} {{ 'a-b-c'.replace('-', '', 1) }} {{ 'ab'.replace('', '.') }} {{ 'aXbX'|replace('X', 'yy') }} {{ 'a1b'|replace(1, 2) }} {{ 'ab'|replace('', '-', 2) }}""",
    r"""{{ ', '.join(['a', 'b']) }} {{ [1, 'b', none]|join('-') }} {{ [{'n': 1}, {'n': 2}]|join(',', attribute='n') }} {{ 'abc'|join('.') }} {{ nope|join(',') }}|""",
    r"""{{ 'key=value=x'.partition('=') }} {{ 'key=value=x'.rpartition('=') }} {{ 'none'.partition('=') }} {{ 'none'.rpartition('=') }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.jinja'.removesuffix('.jinja') }}""",
    r"""{{ '%s is %d' % ('a', 3) }} {{ '%s' % 'b' }} {{ '100%%' % () }} {{ '{} {1}'.format(1, 2) }}""",
    r"""{{ '{} and {}'.format('a', 1) }} {{ '{1}{0}'.format('a', 'b') }} {{ '{n} {{x}}'.format(n=5) }}""",
    r"""{{ 'abc'.isdigit() }} {{ '12'.isdigit() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ 'AB1'.isupper() }} {{ ''.isdigit() }} {{ 'Ab'.islower() }} {{ 'a1'.isalnum() }}""",
    r"""{{ [3, 1, 2]|sort }} {{ ['b', 'A', 'c']|sort }} {{ ['b', 'A']|sort(case_sensitive=true) }} {{ [1, 2]|sort(reverse=true) }} {{ [{'a': 2}, {'a': 1}]|sort(attribute='a') }} {{ messages|sort(attribute='role')|map(attribute='role')|list }}""",
    r"""{{ [1, 2, 3]|first }} {{ [1, 2, 3]|last }} {{ []|first }}| {{ 'abc'|first }} {{ 'abc'|last }} {{ [1, 2]|length }} {{ 'é🎈'|count }} {{ {}|length }} {{ nope|length }} {{ 'abc'|list }} {{ [1, 2]|reverse|list }} {{ 'abc'|reverse }}""",
    r"""{{ [1, 2, 3]|sum }} {{ [{'v': 1}, {'v': 2}]|sum(attribute='v') }} {{ [1, 2]|sum(start=10) }} {{ [3, 1]|min }} {{ ['a', 'B']|max }} {{ []|max }}| {{ [1, 1, 2, 'a', 'A']|unique|list }}""",
    r"""{{ -3|abs }} {{ 2.5|round }} {{ 3.14159|round(2) }} {{ 2.3|round(method='ceil') }} {{ 5|round }} {{ 2.675|round(2) }} {{ '42'|int }} {{ 'x'|int }} {{ '4.7'|int }} {{ 'x'|int(-1) }} {{ 3.9|int }} {{ '1.5'|float }} {{ 'x'|float }} {{ 3|float }} {{ true|int }} {{ none|int }} {{ ' 7 '|int }} {{ '1_0'|int }}""",
    r"""{{ nope|default('d') }} {{ ''|default('d') }}| {{ ''|default('d', true) }} {{ none|default('d') }} {{ nope|d }}| {{ false|default('x', boolean=true) }}""",
    r"""{{ {'b': 1, 'a': 2}|dictsort }} {{ {'b': 1, 'a': 2}|dictsort(by='value') }} {{ {'b': 1, 'A': 2}|dictsort(reverse=true) }} {% for k, v in {'a': 1}|items %}{{ k }}{{ v }}{% endfor %}""",
    r"""{{ [1, 2, 3, 4]|select('even')|list }} {{ [1, 2, 3]|reject('odd')|list }} {{ [0, 1, '']|select|list }} {{ ['a', 'b']|reject('equalto', 'a')|join }} {{ [1, 5]|select('gt', 2)|list }} {{ [{'a': 1}, {'b': 2}]|selectattr('a')|list }} {{ [{'a': 1}, {'b': 2}]|selectattr('a', 'defined')|list|length }} {{ [{'a': {'b': 3}}]|map(attribute='a.b')|list }} {{ [{'a': 1}, {}]|map(attribute='a', default='-')|list }} {{ ['a']|map('upper')|first }} {{ [[1, 2]]|map(attribute=1)|list }} {{ ['a b']|map('replace', ' ', '_')|list }}""",
    r"""{{ {'a': [1, 2.5, none, true, 'é"\n</x>']}|tojson }} {{ 'é🎈'|tojson(ensure_ascii=true) }} {{ {'b': 1, 'a': {}}|tojson(indent=2, sort_keys=true) }} {{ [1, [2]]|tojson(separators=(',', ':')) }} {{ {1: 2, none: 3, true: 4}|tojson }} {{ []|tojson(indent=4) }} {{ [[], {}, [1]]|tojson(indent=1) }}""",
    r"""{{ 'a\nb\n\nc'|indent }}| {{ 'a\nb'|indent(2, true) }}| {{ 'a\n\nb'|indent(width=1, blank=true) }}| {{ 'a\nb'|indent('> ') }} {{ 'a\n'|indent }}|""",
    r"""{{ '<b>'|safe }} {{ '<b> & "c"'|e }} {{ {'a': '<'}|tojson|safe }} {{ 1|string ~ 'x' }} {{ none|string }}""",
    r"""{{ strftime_now('%d %B %Y') }} {{ strftime_now('%Y-%m-%d %H:%M:%S %p %j %y %a %A %b %I %M %%') }} {{ strftime_now('%-d') }}""",
    r"""{{ messages[0].role }} {{ messages[0]['role'] }} {{ messages[0].get('role') }} {{ messages[0].get('x') }} {{ messages[0].get('x', 'd') }} {{ messages[0].nope is defined }} {{ messages[9] is defined }} {{ 'role' in messages[0] }} {{ messages.0.role }} {{ messages[0].items is defined }} {{ messages[0]['items'] is callable }}""",
    r"""{{ messages | length }}{{ messages|map(attribute='role')|unique|join(',') }}{{ (messages|last).content }}{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|first|trim }}""",
    r"""{% raw %}{{ not }} {% evaluated %}{% endraw %}""",
    r"""{{ '}}' }}{{ '{%' }}{{ {'a': {'b': 1}}.a.b }}{{ {'a':{'b':1}}}}""",
    r"""{% set text %}a{{ 1 }}b{% endset %}{{ text }}{{ text|length }} {% set up | upper | replace('A', '4') %}abc{% endset %}{{ up }}{% filter upper %}x{{ 'y' }}{% endfilter %}{% filter trim|upper %}  q {% endfilter %}""",
    r"""{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}""",
    r"""{% set x = 1 %}{% set y %}{% set x = 2 %}{{ x }}{% endset %}{{ x }}{{ y }}{% generation %}{% set x = 3 %}{{ x }}{% endgeneration %}{{ x }}""",
    r"""{% for i in range(10) %}{% if i == 2 %}{% continue %}{% elif i == 5 %}{% break %}{% endif %}{{ i }}{% else %}never{% endfor %}""",
    r"""{% for i in [1, 2, 3] if i != 2 %}{{ loop.index }}/{{ loop.length }}:{{ i }} {% endfor %}{% for i in [[1, 2], [3]] %}{% set outer = loop %}{% for j in i %}{{ outer.index }}{{ loop.index }}{{ loop.first }} {% endfor %}{% endfor %}""",
    r"""{% for c in 'aé🎈' %}{{ loop.revindex }}{{ c }}{% endfor %}{% for x in nope %}x{% else %}none{% endfor %}""",
    r"""{{ dict(a=1, b='x') }} {{ dict({'a': 1}, b=2) }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ [1] * 3 }} {{ 'ab' * 2 }} {{ 2 * 'x' }} {{ 'a' * -1 }}|""",
    r"""{{ [1, 2].index(2) }} {{ [1, 1].count(1) }} {{ [1, 2] == [1, 2] }} {{ (1,) == [1] }} {{ {'a': 1} == {'a': 1.0} }} {{ nope == nope2 }} {{ nope == none }}""",
    r"""{{ (messages|selectattr('role', 'eq', 'x')) is iterable }}{% if messages|selectattr('role', 'eq', 'x') %}true{% endif %}{% set g = [1, 2]|map('string') %}{{ g|first }}{{ g|list }}{{ g|list }}""",
    r"""{{ 'a' is defined and 'b' is string or nope }} {{ not nope is defined }} {{ 1 if nope is not defined else 2 }} {{ 2 is divisibleby 2 and 3 is odd }} {{ not 1 == 2 }}""",
    r"""{{ 3 - 1|abs }} {{ -1|abs }} {{ 'a' ~ 'b'|upper }} {{ ('a' ~ 'b')|upper }} {{ 1 + 1 ~ 2 * 2 }} {{ [1, 2]|first + 5 }} {{ 'x'|upper|lower|length }}""",
    r"""{{ nope.attribute }}""",
    r"""{{ nope['item'] }}""",
    r"""{{ nope() }}""",
    r"""{{ nope + 1 }}""",
    r"""{{ nope < 1 }}""",
    r"""{{ 'a' + 1 }}""",
    r"""{{ 1 / 0 }}""",
    r"""{{ 1 < 'a' }}""",
    r"""{{ [1].append(2) }}""",
    r"""{{ ''.__class__ }}|""",
    r"""{{ ''.__class__.__mro__ }}""",
    r"""{{ none.x }}|{{ none[0] }}|{{ 5 .x }}|{{ [][0] }}|{{ {}[[]] }}|""",
    r"""{% set x = none %}{{ x[1:] }}""",
    r"""{{ nope|upper }}|{{ nope|trim }}|{{ nope|string }}|{{ nope|list }}|""",
    r"""{{ nope|tojson }}""",
    r"""{{ 1|length }}""",
    r"""{{ {}|first }}|{{ [2, 'a']|sort }}""",
    r"""{{ raise_exception('stop ' ~ 5) }}""",
    r"""{% set x = {'a': 1} %}{% set x.a = 2 %}""",
    r"""{% for a, b in [[1]] %}{% endfor %}""",
    r"""{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}""",
    r"""{% macro m(a) %}{% endmacro %}{{ m(b=2) }}""",
    r"""{{ 'abc'.index('z') }}""",
    r"""{{ 'x' in 5 }}""",
    r"""{{ 1 in 'abc' }}""",
    r"""{{ 'a'.split('') }}""",
    r"""{{ [1, 2]|join.x }}""",
    r"""{{ range(1, 2, 0) }}""",
    r"""{{ range(100001) | length }}""",
    r"""{{ loop.index }}""",
    r"""{{ [nope] }} {{ {'a': nope} }}""",
    r"""{{ [1, 2, 3][::0] }}""",
    r"""{{ 'a' % 5 }}""",
    r"""{{ '%d' % 'x' }}""",
    r"""{{ (1, 2)|first }}{{ ((1, 2), 3) }}{{ [(), (1,)] }}""",
    r"""{{ 9223372036854775807 }} {{ 0 }} {{ 00 }} {{ 1.0e2 }} {{ 1E-3 }}""",
    "a{# comment #}b {#- strip -#} c {# multi\nline #}\nd",
    "  {% if true %}\n    indented\n  {% endif %}\nend",
    "x\n  {%+ if true %}kept{% endif +%}\nafter",
    "a\n{%- if true -%}\n   b\n{%- endif %}\n\nc",
    "x {{- ' y ' -}} z {{ 'w' }}\nnext line\n    {{ 'not stripped' }}\n",
    r"""  {% for i in [1] %}  {{ i }}  {% endfor %}  tail""",
    "  {% raw -%}\n   raw {# text\n  {%- endraw %}\nend",
    "{% raw %}\nx\n  {% endraw %}\nend",
    "one\n\ntwo\n\n\n",
    "a\r\nb{% if true %}\r\nc{% endif %}\rd\r\n",
    "{%- for i in range(2) %}\n  {{- i }}\n  line {{ i }}\n{%- endfor %}\n",
    "{#- a -#}\n\n x {#+ b +#}\n y\n  {# c #}\n z\n",
    "{{- 'a' }}\n\n{{ 'b' -}}\n\n{{+ 'c' }}\n",
    "{% if true %}\n\n  a{% endif %} b\n\u00a0\u2003{% if true %}c{% endif %}",
]


class Generator:
    """Random snippets over the grammar: most render, some are errors in Python and must then be errors in ours."""

    HEAD = "{% set ns = namespace(v=1) %}{% macro m(x, y=2) %}<{{ x }}{{ y }}>{% endmacro %}{% set s = ' s ' %}"
    ATOMS = {
        "str": ["'a'", "''", "'Ab c'", "'x,y,'", "' é🎈\\n'", "messages[0].content", "messages[-1].role", "bos_token", "s",
                "m('q')", "'-12'", "\"it's\""],
        "int": ["0", "1", "-3", "7", "2.5", "-0.75", "true", "ns.v"],
        "bool": ["true", "false", "add_generation_prompt", "tools"],
        "list": ["[]", "[1, 2, 3]", "['b', 'A', 'a']", "(1, 'x')", "messages", "range(3)", "[[1, 2], ['c']]", "(2,)"],
        "dict": ["{}", "{'k': 1}", "messages[0]", "{'b': [1, none], 'a': {'c': 2.0}}", "{1: 'i', 'z': true}"],
        "any": ["nope", "none", "ns", "messages[7]"],
    }
    # What gives a value of each type; {x} stands for an operand of that type.
    RULES = {
        "str": ["{str} + {str}", "{any} ~ {any}", "{str}|upper", "{str}|lower", "{str}|title", "{str}|capitalize",
                "{str}|trim", "{str}.strip()", "{str}.lstrip(' a')", "{str}[1:]", "{str}[::-1]", "{str}[-1]", "{str}[:{int}]",
                "{list}|join({str})", "{any}|string", "{any}|tojson", "{dict}|tojson(indent={int})", "{str} * {int}",
                "{str}|replace({str}, {str})", "{str}.replace({str}, {str}, 1)", "{str}|indent(2)", "{any}|default({str})",
                "{any}|default({str}, true)", "{str} if {bool} else {str}", "{str}.title()", "{str}|reverse", "m({any})",
                "m(x={any}, y={int})", "{str}|first", "{str} % {any}", "{dict}.role", "{str} or {str}"],
        "int": ["{int} + {int}", "{int} - {int}", "{int} * {int}", "{int} / {int}", "{int} // {int}", "{int} % {int}",
                "{int} ** 2", "{list}|length", "{str}|length", "{dict}|count", "{str}|int", "{str}|float(-1)", "-{int}",
                "{int}|abs", "{int}|round(1)", "{int}|round", "{int}|int", "[{int}, {int}]|sum", "[{int}, {int}]|max",
                "{str}.find({str})", "{str}.count({str})", "{list}.count({any})", "{list}[0]", "{int} and {int}"],
        "bool": ["{int} < {int}", "{int} <= {int} < {int}", "{any} == {any}", "{any} != {any}", "{str} in {str}",
                 "{any} in {list}", "{str} not in {dict}", "not {any}", "{any} and {any}", "{any} or {any}",
                 "{str}.startswith({str})", "{str}.endswith({str})", "{str} > {str}", "{list} < {list}", "{any} is defined",
                 "{any} is not none", "{any} is string", "{any} is number", "{any} is integer", "{any} is float",
                 "{any} is boolean", "{any} is mapping", "{any} is sequence", "{any} is iterable", "{any} is true",
                 "{any} is false", "{int} is even", "{int} is odd", "{int} is divisibleby 2", "{any} is eq {int}",
                 "{str} is lower", "{str} is upper", "{any} is callable", "{any} is undefined", "{any} is in {list}"],
        "list": ["{str}.split(',')", "{str}.split()", "{str}.rsplit(none, 1)", "{str}.splitlines()", "{list} + {list}",
                 "{list}[1:]", "{list}[::-1]", "{list}[{int}:]", "{list}|sort", "{list}|list", "{str}|list", "{dict}|list",
                 "{list}|reverse|list", "{list}|unique|list", "{list}|map('string')|list", "{list}|select|list",
                 "{list}|reject('string')|list", "{list}|map(attribute='role')|list", "{list}|select('eq', {any})|list",
                 "{list}|selectattr('role', 'eq', {str})|list", "{dict}.items()|list", "{dict}|dictsort", "{dict}.keys()|list",
                 "{dict}|items|list", "[{any}, {any}]", "({any}, {any})", "{list} * 2", "{str}.partition({str})",
                 "{list}|sort(reverse=true)", "{list}|map('upper')|list", "[{int}, {int}]|sort"],
        "dict": ["{'x': {any}}", "{{str}: {any}, 'k': {any}}", "{dict} if {bool} else {dict}", "messages|first",
                 "{list}|last", "dict(q={any})"],
        "any": ["{dict}.k", "{dict}['role']", "{dict}.get({str})", "{list}[{int}]", "{list}|first", "{list}|last",
                "{any} if {bool}", "{list}|min", "{list}|max", "{list}|sum", "{any}[0]", "{any}.role", "{any}|length",
                "{any}|list", "{any} + {any}", "{any} * {any}", "{any} < {any}", "{any}|int", "{any}|join", "{any}|first"],
    }
    TYPES = ["str", "int", "bool", "list", "dict"]

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.atoms = []  # of the snippet at hand

    def expression(self, depth, kind="any"):
        pick = self.random
        if kind == "any" and pick.random() < 0.9:
            kind = pick.choice(self.TYPES)
        if depth == 0 or pick.random() < 0.1:
            # Through variables, for what Jinja computes from constants while compiling it takes more lightly.
            self.atoms.append(pick.choice(self.ATOMS[kind]))
            return f"a{len(self.atoms)}"

        def operand(found):
            text = self.expression(depth - 1, found[1])
            return text if pick.random() < 0.3 else f"({text})"

        return re.sub(r"\{(str|int|bool|list|dict|any)\}", operand, pick.choice(self.RULES[kind]))

    def snippet(self):
        self.atoms.clear()
        body = self.body()
        return self.HEAD + "".join(f"{{% set a{i} = {atom} %}}" for i, atom in enumerate(self.atoms, 1)) + body

    def body(self):
        pick = self.random
        kind = pick.random()
        if kind < 0.75:
            return "{{ " + self.expression(pick.choice([1, 2, 2, 3])) + " }}"
        if kind < 0.9:
            return self.with_spaces(
                "a_{%^ if @ ^%}_b_{#^ c ^#}_{%^ else ^%}_{{^ 'd' }}_{%^ endif ^%}_e_{{- @ -}}_f\n")
        return ("{% for i in " + self.expression(2, "list") + " %}{{ loop.index }}{{ i }}{% set s = s ~ i %}{{ s }}"
                "{% set ns.v = ns.v ~ loop.last %}{% else %}none{% endfor %}{{ s }}{{ ns.v }}")

    def with_spaces(self, text):
        pick = self.random
        text = re.sub(r"_", lambda _: pick.choice(["", " ", "\n", "\n  ", " \n", "\n\n"]), text)
        text = re.sub(r"\^", lambda _: pick.choice(["", "", "-", "+"]), text)
        return re.sub(r"@", lambda _: self.expression(1), text)


def result(env, name, template, messages, generation=True):
    return {"name": name, "template": template, "messages": messages, "generation": generation,
            **render(env, template, MESSAGES[messages], generation)}


def main():
    warnings.simplefilter("ignore", SyntaxWarning)
    env = environment()
    cases = []
    if len(sys.argv) == 5:
        generator = Generator(int(sys.argv[3]))
        for i in range(int(sys.argv[4])):
            cases.append(result(env, f"random {sys.argv[3]}/{i}", generator.snippet(), "turns"))
    else:
        for name, template in TEMPLATES.items():
            for messages in MESSAGES:
                for generation in (True, False):
                    cases.append(result(env, f"{name}/{messages}/{generation}", template, messages, generation))
        for i, snippet in enumerate(SNIPPETS):
            cases.append(result(env, f"snippet {i}", snippet, "turns"))
    templates = list(dict.fromkeys(case["template"] for case in cases))
    for case in cases:
        case["template"] = templates.index(case["template"])
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        lines = ",\n  ".join(json.dumps(case, ensure_ascii=False) for case in cases)
        sources = ",\n  ".join(json.dumps(template, ensure_ascii=False) for template in templates)
        out.write(f'{{"now": {int(NOW.timestamp())},\n"messages": {json.dumps(MESSAGES, ensure_ascii=False)},\n'
                  f'"templates": [\n  {sources}],\n"cases": [\n  {lines}]}}\n')


main()

"""The HTML template of report.html, which loads nothing from the network."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ study }}: bpvariants</title>
<style>
:root { --text: #222; --soft: #595959; --line: #d9d9d9; --ground: #fff; }
:root { --shade: #eef4fa; --link: #0b5fa5; --error: #b34700; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --soft: #a8a8a8; --line: #444; --ground: #161a1f; }
  :root { --shade: #222c38; --link: #7cc0f5; --error: #f0935a; }
  img { filter: brightness(.9); }
}
* { box-sizing: border-box; }
body { font: 1rem/1.55 system-ui, sans-serif; color: var(--text); }
body { background: var(--ground); margin: 0 auto; padding: 0 1rem 3rem; }
body { max-width: 76rem; overflow-wrap: break-word; }
p, ul, .card, .conclusion { max-width: 46rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1.5rem 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.08rem; margin: 1.8rem 0 .4rem; }
h2 a, h3 a { color: inherit; text-decoration: none; }
h2 a:hover, h3 a:hover { text-decoration: underline; }
a { color: var(--link); }
code, pre { font: .9em/1.5 ui-monospace, monospace; }
pre { overflow-x: auto; background: var(--shade); padding: .6rem .8rem; }
nav ul { padding-left: 1.2rem; margin: .3rem 0; }
.wide { overflow-x: auto; margin: .3rem 0; }
table { border-collapse: collapse; font-size: .85rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
caption span { position: sticky; left: 0; display: inline-block; }
caption span { max-width: min(100%, calc(100vw - 2rem)); }
nav + main > .wide:first-child { margin-top: 1.8rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
th { text-align: left; vertical-align: bottom; }
thead th:not(:first-child, .text) { text-align: right; }
td { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tbody th { font-weight: 400; min-width: 8rem; vertical-align: middle; }
td.text { text-align: left; white-space: normal; min-width: 12rem; }
tr.group th { font-weight: 600; padding-top: .9rem; }
tr.marked th, tr.marked td { font-weight: 600; background: var(--shade); }
.note, figcaption, footer { color: var(--soft); font-size: .88rem; }
figure { margin: 1.2rem 0; }
figcaption { max-width: 46rem; }
.pictures { display: flex; flex-wrap: wrap; gap: .5rem; }
.pictures > div { overflow-x: auto; max-width: 100%; }
img { height: auto; max-width: 100%; background: #fff; display: block; }
@media (max-width: 44rem) { img { max-width: max(100%, 62rem); } }
.several img, img.small { max-width: 100%; }
.conclusion { border-left: .3rem solid var(--link); padding: .2rem .9rem; }
.conclusion { background: var(--shade); }
.option { white-space: nowrap; }
.card { border: 1px solid var(--line); padding: .3rem 1rem .6rem; margin: 1rem 0; }
.card h3 { margin-top: .6rem; }
.equation { display: block; overflow-x: auto; padding: .3rem 0; font-size: 1.05rem; }
svg { width: 100%; max-width: 30rem; height: auto; display: block; margin: .5rem 0; }
.interrupted { border: 2px solid var(--error); padding: .5rem 1rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem 1rem; }
dt { font-family: ui-monospace, monospace; } dd { margin: 0; }
@media print { nav, details { display: none; } }
{{ style }}
</style>
</head>
<body>
<header>
<h1>{{ question }}</h1>
{% for paragraph in about %}<p>{{ paragraph }}</p>{% endfor %}
<p>The study <code>{{ study }}</code> of bpvariants. Command:</p>
<pre>{{ command }}</pre>
{% if interrupted %}<p class="interrupted"><strong>Interrupted: some jobs are missing,
or the last one was cut short.</strong> {{ continued }}</p>{% endif %}
</header>
{% if contents %}<nav aria-label="Contents"><h2 id="contents">Contents</h2>
<ul>{% for entry in contents %}
<li><a href="#{{ entry.anchor }}">{{ entry.text }}</a>{% if entry.parts %}
<ul>{% for part in entry.parts %}
<li><a href="#{{ part.anchor }}">{{ part.text }}</a></li>{% endfor %}</ul>{% endif %}
</li>{% endfor %}</ul></nav>{% endif %}
<main>
{% for block in blocks %}{% if block.kind == "Heading" %}
<h{{ block.level }} id="{{ block.anchor }}"><a href="#{{ block.anchor }}">
{{- block.text }}</a></h{{ block.level }}>
{% elif block.kind == "Paragraph" %}
{% if block.exact %}<pre>{{ block.text }}</pre>{% else %}
<p{% if block.conclusion %} class="conclusion"{% endif %}>
{{- block.text | replace(" %", "\u00a0%") | options_unbroken }}</p>
{% endif %}
{% elif block.kind == "Fragment" %}{{ block.html | safe }}
{% elif block.kind == "Table" %}
<div class="wide" tabindex="0" role="region" aria-label="{{ block.title or "Table" }}">
<table id="{{ block.anchor }}">
{% if block.title %}<caption><span>{{ block.title }}</span></caption>{% endif %}
<thead><tr>{% for name, long in block.heads %}
<th scope="col"{% if long %} class="text"{% endif %}>{{ name }}</th>{% endfor %}
</tr></thead>
<tbody>{% for row in block.rows %}
{% if row.group %}<tr class="group"><th scope="rowgroup" colspan="{{ block.columns }}">
{{- row.group }}</th></tr>{% else %}
<tr{% if row.marked %} class="marked"{% endif %}><th scope="row">{{ row.name }}</th>
{% for cell in row.cells %}<td{% if cell.long %} class="text"{% endif %}>
{{- cell.text }}</td>{% endfor %}</tr>{% endif %}{% endfor %}
</tbody></table></div>
{% for line in block.note %}<p class="note">{{ line }}</p>{% endfor %}
{% elif block.kind == "Picture" %}
<figure id="{{ block.anchor }}">
<div class="pictures{% if block.files | length > 1 %} several{% endif %}">
{% for file in block.files %}<div>
<img{% if file.small %} class="small"{% endif %}
 alt="{{ file.alt }}" src="{{ file.data }}">
</div>
{% endfor %}</div>
<figcaption>{{ block.caption }}</figcaption></figure>
{% endif %}{% endfor %}
</main>
<footer>
<h2 id="run"><a href="#run">The run</a></h2>
<p>{{ seconds }} s in total. Files in the same folder: {{ files }}.</p>
<details><summary>Options</summary><dl>{% for name, value in options %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl></details>
<details><summary>Versions and devices</summary><dl>{% for name, value in versions %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl></details>
</footer>
</body>
</html>
"""

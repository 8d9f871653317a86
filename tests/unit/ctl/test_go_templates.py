"""Go templates: what they make of documents, and which are beyond us."""

from __future__ import annotations

import pytest

from calipy.console.failures import Failure
from calipy.ctl.go_templates import render

POOL = {
    "kind": "IPPool",
    "metadata": {"name": "a", "labels": {"x": "1", "b": "2"}},
    "spec": {
        "cidr": "10.0.0.0/8",
        "natOutgoing": True,
        "allowedUses": ["Workload", "Tunnel"],
        "blockSize": 26,
        "none": "",
    },
}
ROOT = [{"items": [POOL, {"metadata": {"name": "b"}}]}]

# template | of POOL | what it makes
ONE = [
    ("", ""),
    ("text } only", "text } only"),
    ("{{.Spec.CIDR}}", "10.0.0.0/8"),
    ("{{ .spec.cidr }}", "10.0.0.0/8"),
    ("{{.ObjectMeta.Name}} {{.Name}} {{.TypeMeta.Kind}} {{.Kind}}", "a a IPPool IPPool"),
    ("{{.Spec.NATOutgoing}} {{.Spec.BlockSize}}", "true 26"),
    ("{{.Spec.AllowedUses}}", "[Workload Tunnel]"),
    ("{{.ObjectMeta.Labels}}", "map[b:2 x:1]"),
    ("{{.Spec.Nothing}} {{.Spec.CIDR.Deeper}}", "<no value> <no value>"),
    ('{{join .Spec.AllowedUses ","}}', "Workload,Tunnel"),
    ('{{join .Labels ";"}} {{join .Spec.CIDR ","}} {{join .Spec.Nothing ","}}|', "b=2;x=1 10.0.0.0/8 |"),
    ("{{len .Spec.AllowedUses}} {{len .Spec.Nothing}}", "2 0"),
    ('{{"a}}b\\n\\"c\\""}}', 'a}}b\n"c"'),
    ("a {{- .Name -}} b", "aab"),
    ("a  {{- /* said aside }} */ -}}  b", "ab"),
    ("{{range .Spec.AllowedUses}}<{{.}}>{{end}}", "<Workload><Tunnel>"),
    ("{{range .Labels}}{{.}},{{end}}", "1,2,"),
    ("{{range .Spec.Nothing}}x{{else}}none {{.Name}}{{end}}", "none a"),
    ("{{if .Spec.NATOutgoing}}yes{{else}}no{{end}}", "yes"),
    ("{{if .Spec.None}}yes{{else}}no{{end}}{{if .Spec.Nothing}}!{{end}}", "no"),
    ("{{if .Name}}{{if .Spec.Nothing}}1{{else}}2{{end}}{{else}}3{{end}}", "2"),
]


@pytest.mark.parametrize(("template", "made"), ONE, ids=[template for template, _ in ONE])
def test_a_document(template: str, made: str) -> None:
    assert render(template, POOL) == made


def test_lists_of_documents() -> None:
    assert render("{{range .}}{{range .Items}}{{.Name}}:{{.Spec.CIDR}}\n{{end}}{{end}}", ROOT) == (
        "a:10.0.0.0/8\nb:<no value>\n"
    )


BEYOND = "is beyond what this program knows of Go templates"
WRONG = [
    ("{{.a | printf}}", f"go-template '.a | printf': {BEYOND}"),
    ("{{$x := .a}}", f"go-template '$x := .a': {BEYOND}"),
    ("{{with .a}}{{end}}", f"go-template 'with .a': {BEYOND}"),
    ('{{printf "%s" .a}}', f"go-template 'printf \"%s\" .a': {BEYOND}"),
    ("{{range $i, $x := .a}}{{end}}", f"go-template 'range $i, $x := .a': {BEYOND}"),
    ("{{if .a}}{{else if .b}}{{end}}", "go-template 'if .a': wants {{end}}, and else if .b comes first"),
    ("{{}}", f"go-template '': {BEYOND}"),
    ("{{.a", "go-template '{{.a': is not closed, or can't be understood"),
    ("{{range .a}}", "go-template 'range .a': wants {{end}}, and the end comes first"),
    ("a{{end}}b", "go-template 'end': ends nothing that was begun"),
    ("{{if .a}}{{else}}{{else}}{{end}}", "go-template 'if .a': wants {{end}}, and else comes first"),
]


@pytest.mark.parametrize(("template", "said"), WRONG, ids=[template for template, _ in WRONG])
def test_what_is_no_template_of_ours_is_refused(template: str, said: str) -> None:
    with pytest.raises(Failure) as failure:
        render(template, POOL)
    assert str(failure.value).startswith(said)

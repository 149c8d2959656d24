"""The command that lists a model's hookpoints."""

from cad_exp.cli import hookpoints


def test_the_command(capsys, tiny_folder):
    assert hookpoints.main(["model=local", f"model.path={tiny_folder}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "mid_block.attentions.0  block" in lines and "noisy_latent  noisy_latent" in lines
    assert lines.index("conv_in  embedding") < lines.index("mid_block  stage")


def test_a_wrong_model_is_answered(capsys):
    assert hookpoints.main(["model=minni"]) == 2
    assert "did you mean" in capsys.readouterr().err

"""MTAInpaintPipeline that starts from the noised picture instead of noise alone, as Blended Latent Diffusion
does (Avrahami et al. 2023, section 3.2): the first steps are left out."""

from __future__ import annotations

from typing import Any

from mtadiffusion.inpaint.pipeline import MTAInpaintPipeline


class LateStartPipeline(MTAInpaintPipeline):
    """Runs the last `strength` of the steps. Needs latent blending, whose known latents it starts from."""

    strength: float = 1.0

    @classmethod
    def taking_over(cls, pipe: MTAInpaintPipeline, strength: float) -> LateStartPipeline:
        """A pipeline with the parts and the configuration of another one."""
        _, optional = cls._get_signature_keys(cls)
        parts = pipe.components
        options = {name: pipe.config[name] for name in optional if name not in parts and name in pipe.config}
        made = cls(**parts, **options)
        made.strength = strength
        return made

    def _schedule(self, steps: int) -> None:
        super()._schedule(steps)
        left_out = min(int(steps * (1 - self.strength)), steps - 1) * self.scheduler.order
        # Both are cut, so that solvers of higher order know where their schedule begins and ends.
        for schedule in ("timesteps", "sigmas"):
            values = getattr(self.scheduler, schedule, None)
            if values is not None:
                setattr(self.scheduler, schedule, values[left_out:])

    def _start(self, *arguments: Any) -> Any:
        state = super()._start(*arguments)
        if self.strength < 1 and state.known_latents is not None:
            first = self.scheduler.timesteps[:1]
            state.latents = self._renoised(state.known_latents, state.noise, first)
        return state

"""LoRA adapters: their algebra on ΔW, their files, and mounting them on a backbone."""

"""MTAPipeline: from images to mask-text pairs. Stages that know no engine, and the engines that run them."""

// The colors of experts, by their number. They are far apart for most eyes, also beside each other;
// further experts turn by the golden angle.

const HUES = [255, 55, 150, 330, 100, 200, 20, 290];
const GOLDEN_ANGLE = 137.5;

export const hueOf = (number) => HUES[number] ?? (HUES[0] + number * GOLDEN_ANGLE) % 360;

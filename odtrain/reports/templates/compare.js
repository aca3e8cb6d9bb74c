
// ---- two of anything that detects, on the same pictures

const compared = dataOf("data");
if (compared.shots.length) gallery(compared);

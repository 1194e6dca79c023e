export const handler = async () => 'named'; export default { other: async () => 'default' };

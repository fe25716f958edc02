export {
  type RemoteApiKeys,
  type RemoteApiKeysOptions,
  remoteApiKeys,
  type VerifyingClient,
} from './remote-api-keys.ts'

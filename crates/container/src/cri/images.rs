//! Image verbs.

use super::{Cri, CriError, PULL_TIMEOUT, QUERY_TIMEOUT, REQUEST_TIMEOUT, call, v1};

impl Cri {
    pub async fn list_images(&self) -> Result<Vec<v1::Image>, CriError> {
        let request = v1::ListImagesRequest { filter: None };
        let reply = call("list images", QUERY_TIMEOUT, self.images.clone().list_images(request)).await?;
        Ok(reply.images)
    }

    /// The image a reference stands for; None where it is not on this machine.
    pub async fn image_status(&self, image: &str) -> Result<Option<v1::Image>, CriError> {
        let request = v1::ImageStatusRequest { image: Some(spec(image, "")), verbose: false };
        let reply = call("image status", QUERY_TIMEOUT, self.images.clone().image_status(request)).await?;
        Ok(reply.image)
    }

    /// Pulls an image and answers the reference to start containers from.
    pub async fn pull_image(
        &self,
        image: &str,
        runtime_handler: &str,
        auth: Option<v1::AuthConfig>,
        sandbox: Option<v1::PodSandboxConfig>,
    ) -> Result<String, CriError> {
        let request = v1::PullImageRequest { image: Some(spec(image, runtime_handler)), auth, sandbox_config: sandbox };
        let reply = call("pull image", PULL_TIMEOUT, self.images.clone().pull_image(request)).await?;
        Ok(reply.image_ref)
    }

    pub async fn remove_image(&self, image: &str) -> Result<(), CriError> {
        let request = v1::RemoveImageRequest { image: Some(spec(image, "")) };
        call("remove image", REQUEST_TIMEOUT, self.images.clone().remove_image(request)).await.map(drop)
    }

    /// What images take on disk.
    pub async fn image_fs(&self) -> Result<v1::ImageFsInfoResponse, CriError> {
        let request = v1::ImageFsInfoRequest {};
        call("image file system", QUERY_TIMEOUT, self.images.clone().image_fs_info(request)).await
    }
}

fn spec(image: &str, runtime_handler: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: image.to_owned(), runtime_handler: runtime_handler.to_owned(), ..v1::ImageSpec::default() }
}
